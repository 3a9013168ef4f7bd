-- What retention removes, and what that leaves to account for.

-- Writes down what a sweep removed.
create function sagabus.swept_v1(p_what text, p_removed bigint, p_through bigint) returns void
language sql
as $$
    insert into sagabus.swept as s (what, removed, through)
    select p_what, p_removed, p_through where p_removed > 0
    on conflict (what) do update set removed = s.removed + excluded.removed,
        through = greatest(s.through, excluded.through)
$$;

-- Looks at one page of the inbox, from a key on, and removes what is older than its retention.
create function sagabus.sweep_inbox_v1(
    p_message uuid, p_endpoint int, p_page int, p_kept bigint,
    out seen bigint, out removed bigint, out last_message uuid, out last_endpoint int
) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_before bigint := sagabus.now_micros() - p_kept;
begin
    with page as (
        select b.message_id, b.endpoint_id, b.accepted_at from sagabus.inbox b
        where (b.message_id, b.endpoint_id) > (p_message, p_endpoint)
        order by b.message_id, b.endpoint_id limit p_page
    ), gone as (
        delete from sagabus.inbox b using page p
        where b.message_id = p.message_id and b.endpoint_id = p.endpoint_id
          and p.accepted_at <= v_before
        returning 1
    )
    select (select count(*) from page), (select count(*) from gone), l.message_id, l.endpoint_id
    into seen, removed, last_message, last_endpoint
    from (select 1) one left join lateral (
        select p.message_id, p.endpoint_id from page p
        order by p.message_id desc, p.endpoint_id desc limit 1
    ) l on true;
end $$;

-- Looks at one page of the instances, from a key on, and removes old tombstones.
create function sagabus.sweep_instances_v1(
    p_kind text, p_key text, p_page int, p_kept bigint,
    out seen bigint, out removed bigint, out last_kind text, out last_key text
) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_before bigint := sagabus.now_micros() - p_kept;
begin
    with page as (
        select i.kind, i.key, i.completed and i.updated_at <= v_before as is_old
        from sagabus.instance i where (i.kind, i.key) > (p_kind, p_key)
        order by i.kind, i.key limit p_page
    ), gone as (
        delete from sagabus.instance i using page p
        where p.is_old and i.kind = p.kind and i.key = p.key
          -- Asked again of the row as it is when it is locked: a second life may have begun.
          and i.completed and i.updated_at <= v_before
        returning 1
    )
    select (select count(*) from page), (select count(*) from gone), l.kind, l.key
    into seen, removed, last_kind, last_key
    from (select 1) one left join lateral (
        select p.kind, p.key from page p order by p.kind desc, p.key desc limit 1
    ) l on true;
end $$;

-- Removes the oldest history entries.
create function sagabus.sweep_history_v1(p_page int, p_kept bigint) returns bigint
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_before bigint := sagabus.now_micros() - p_kept;
    v_count bigint;
    v_through bigint;
begin
    with gone as (
        delete from sagabus.history h using (
            select o.id, o.at from sagabus.history o order by o.id limit p_page
        ) page where h.id = page.id and page.at <= v_before
        returning h.at
    )
    select count(*), max(g.at) into v_count, v_through from gone g;
    perform sagabus.swept_v1('history', v_count, v_through);
    return v_count;
end $$;

-- Removes dead letters that somebody dealt with. Those that are open are kept. Each status has its
-- own oldest: its index is in the order of ids.
create function sagabus.sweep_dead_letters_v1(p_page int, p_kept bigint) returns bigint
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_before bigint := sagabus.now_micros() - p_kept;
    v_count bigint;
    v_through bigint;
begin
    with gone as (
        delete from sagabus.dead_letter d using (
            select o.id from (
                (select r.id from sagabus.dead_letter r where r.status = 'redriven'
                    order by r.id limit p_page)
                union all
                (select r.id from sagabus.dead_letter r where r.status = 'discarded'
                    order by r.id limit p_page)
            ) o order by o.id limit p_page
        ) page where d.id = page.id and d.status <> 'open' and d.at <= v_before
        returning d.at
    )
    select count(*), max(g.at) into v_count, v_through from gone g;
    perform sagabus.swept_v1('dead_letter', v_count, v_through);
    return v_count;
end $$;

-- Removes the oldest entries of the audit.
create function sagabus.sweep_audit_v1(p_page int, p_kept bigint) returns bigint
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_before bigint := sagabus.now_micros() - p_kept;
    v_count bigint;
    v_through bigint;
begin
    with gone as (
        delete from sagabus.audit a using (
            select o.id from sagabus.audit o order by o.id limit p_page
        ) page where a.id = page.id and a.at <= v_before
        returning a.at
    )
    select count(*), max(g.at) into v_count, v_through from gone g;
    perform sagabus.swept_v1('audit', v_count, v_through);
    return v_count;
end $$;

-- Removes hosts that were not heard of for longer than history is kept.
create function sagabus.sweep_hosts_v1(p_page int, p_kept bigint) returns bigint
language plpgsql
as $$
declare
    v_before bigint := sagabus.now_micros() - p_kept;
    v_count bigint;
begin
    delete from sagabus.host h using (
        select o.id from sagabus.host o where o.heartbeat_at <= v_before limit p_page
        for update skip locked
    ) page where h.id = page.id;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- Removes the first page of what was kept for long enough.
create function sagabus.sweep_sent_v1(p_page int) returns bigint language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now bigint := sagabus.now_micros();
    v_count bigint;
begin
    delete from sagabus.sent s using (
        select o.id from sagabus.sent o where o.kept_until < v_now
        order by o.kept_until limit p_page for update skip locked
    ) page where s.id = page.id;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

update sagabus.store set schema_version = 8;
