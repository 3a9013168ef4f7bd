-- What is asked and what is taken. The settings are explained in the commit call.

-- Answers the loader's questions, one row per question, in order.
create function sagabus.load_v1(
    q_endpoint int[], q_message uuid[], q_kind text[], q_key text[],
    q_destination text[], q_line text[]
) returns table (
    known boolean, version bigint, completed boolean, state text, schema_version int, data bytea,
    timers bytea, origin bytea, blocked boolean
) language plpgsql stable
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    -- Each a look-up of one row: `exists` may become a hash of the whole table, which a plan that
    -- was made while the table was empty goes on to build in every call.
    return query
    select coalesce(k.is_there, false),
        i.version, i.completed, i.state, i.schema_version, i.data, i.timers, i.origin,
        coalesce(l.is_there, false)
    from unnest(q_endpoint, q_message, q_kind, q_key, q_destination, q_line) with ordinality
        as q(endpoint, message, kind, key, destination, line, at)
    left join lateral (
        select true as is_there from sagabus.inbox b
        where b.message_id = q.message and b.endpoint_id = q.endpoint limit 1
    ) k on true
    left join sagabus.instance i on i.kind = q.kind and i.key = q.key
    left join lateral (
        select true as is_there from sagabus.outbox o
        where o.destination = q.destination and o.key = q.line and o.per_key
          and o.parked is null limit 1
    ) l on true
    order by q.at;
end $$;

-- Claims rows of destinations, each up to its limit. Rows that are not the oldest of their line
-- are deferred instead, for at most about 4 ms of one call, so that a long line behind one blocked
-- key costs each claim little. They are pulled forward when their turn comes; the longer they have
-- waited, the longer they are deferred, so that a stuck key costs less with time.
create function sagabus.claim_v1(
    c_destinations text[], c_limits int[], c_total int, c_hot boolean, c_lease bigint
) returns table (
    id bigint, epoch int, destination text, message_id uuid, message_type text, key text,
    headers bytea, body bytea, starts int, failures int, solo_starts int, attempts bytea,
    timer_kind text, timer_key text, timer_name text, timer_generation bigint, expired boolean
) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_now bigint := sagabus.now_micros();
    v_since bigint := case when c_hot then v_now - 60000000 else -9223372036854775808 end;
    v_limits int[] := c_limits;
    v_total int := c_total;
    v_ids bigint[];
    v_at int[];
    v_in_line bigint[];
    v_held bigint[];
begin
    loop
        -- A lock that lets others refer to the row: whoever writes a follower need not wait.
        select array_agg(c.id), array_agg(c.at::int), array_agg(c.id) filter (where c.per_key)
        into v_ids, v_at, v_in_line
        from (
            select r.id, r.per_key, d.at
            from unnest(c_destinations, v_limits) with ordinality as d(destination, n, at)
            cross join lateral (
                select o.id, o.per_key from sagabus.outbox o
                where o.destination = d.destination and o.parked is null
                  and o.available_at <= v_now and o.available_at > v_since
                order by o.available_at limit d.n
                for no key update skip locked
            ) r
            limit v_total
        ) c;
        exit when v_ids is null;
        -- Asked in a statement of its own: it sees whoever went before the locks were had, and
        -- whoever goes later waits for them and pulls.
        v_held := null;
        if v_in_line is not null then
            select array_agg(o.id) into v_held
            from unnest(v_in_line) as l(id) join sagabus.outbox o on o.id = l.id
            where exists (select 1 from sagabus.outbox p
                          where p.destination = o.destination and p.key = o.key and p.per_key
                            and p.parked is null and p.id < o.id);
        end if;
        if v_held is not null then
            update sagabus.outbox o set available_at = v_now + case
                when o.epoch = 0
                then (greatest(300000000, v_now - o.created_at) * (1 + random()))::bigint
                -- One that was claimed before is not pulled.
                else 60000000 end
            from unnest(v_held) as h(id) where o.id = h.id;
            for v_n in 1 .. cardinality(v_ids) loop
                if not v_ids[v_n] = any (v_held) then
                    v_limits[v_at[v_n]] := v_limits[v_at[v_n]] - 1;
                    v_total := v_total - 1;
                end if;
            end loop;
            v_ids := array(select c.id from unnest(v_ids) as c(id) where c.id <> all (v_held));
        end if;
        return query
        update sagabus.outbox o set
            epoch = o.epoch + 1, starts = o.starts + 1, available_at = v_now + c_lease
        from unnest(v_ids) as c(id) where o.id = c.id
        returning o.id, o.epoch, o.destination, o.message_id, o.message_type, o.key, o.headers,
            o.body, o.starts, o.failures, o.solo_starts, o.attempts, o.timer_kind, o.timer_key,
            o.timer_name, o.timer_generation, coalesce(o.expires_at <= v_now, false);
        exit when v_held is null or v_total <= 0 or sagabus.now_micros() > v_now + 4000;
    end loop;
end $$;

-- Claims rows for transports: every destination but endpoints and those left out, found by
-- stepping through the index, in an order that changes so that none is always last.
create function sagabus.claim_transport_v1(
    c_total int, c_each int, c_except text[], c_hot boolean, c_lease bigint
) returns table (
    id bigint, epoch int, destination text, message_id uuid, message_type text, key text,
    headers bytea, body bytea, starts int, failures int, solo_starts int, attempts bytea,
    timer_kind text, timer_key text, timer_name text, timer_generation bigint, expired boolean
) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_destinations text[];
begin
    with recursive steps(destination) as (
        (select o.destination from sagabus.outbox o where o.parked is null
         order by o.destination limit 1)
        union all
        select (
            -- The next text after `x` is `x` and the lowest character; after all of `@..` comes `A`.
            select o.destination from sagabus.outbox o
            where o.parked is null and o.destination >=
                case when s.destination like '@%' then 'A' else s.destination || chr(1) end
            order by o.destination limit 1
        )
        from steps s where s.destination is not null
    )
    select array_agg(s.destination order by random()) into v_destinations
    from steps s
    where s.destination is not null and s.destination not like '@%'
      and s.destination <> all (coalesce(c_except, '{}'));
    if v_destinations is not null then
        return query select * from sagabus.claim_v1(v_destinations,
            array_fill(c_each, array[cardinality(v_destinations)]), c_total, c_hot, c_lease);
    end if;
end $$;

-- Extends what a host has in hand, and its heartbeat. A row that is being settled at this moment
-- is left alone: waiting for it here could make a circle.
create function sagabus.extend_v1(p_host uuid, p_ids bigint[], p_epochs int[], p_lease bigint)
returns bigint language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now bigint := sagabus.now_micros();
    v_count bigint;
begin
    update sagabus.host set heartbeat_at = v_now where id = p_host;
    with ours as (
        select o.id from unnest(p_ids, p_epochs) as k(id, epoch)
        join sagabus.outbox o on o.id = k.id and o.epoch = k.epoch and o.parked is null
        for no key update of o skip locked
    )
    update sagabus.outbox o set available_at = v_now + p_lease from ours u where o.id = u.id;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

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
begin
    delete from sagabus.history h using (
        select o.id, o.at from sagabus.history o order by o.id limit p_page
    ) page where h.id = page.id and page.at <= v_before;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

update sagabus.store set schema_version = 3;
