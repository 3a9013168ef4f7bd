-- What retention removed, and what that leaves to account for.

-- What sweeps removed for good: written in the transaction that removes it, so that the accounts
-- know from when on they are whole.
create table sagabus.swept (
    what    text   primary key,                  -- the table
    removed bigint not null,                     -- how many rows, ever
    through bigint not null                      -- the youngest of them was of this time
);

-- Nobody wrote down what was removed before: accounts begin now, where there is anything.
insert into sagabus.swept (what, removed, through)
select 'history', 0, sagabus.now_micros() where exists (select 1 from sagabus.inbox)
    or exists (select 1 from sagabus.history);

-- Writes down what a sweep removed.
create function sagabus.swept_v1(p_what text, p_removed bigint, p_through bigint) returns void
language sql
as $$
    insert into sagabus.swept as s (what, removed, through)
    select p_what, p_removed, p_through where p_removed > 0
    on conflict (what) do update set removed = s.removed + excluded.removed,
        through = greatest(s.through, excluded.through)
$$;

-- As before, and it says what it removed. Releases of before call it by this name, too.
create or replace function sagabus.sweep_history_v1(p_page int, p_kept bigint) returns bigint
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

-- Lists the dead letters that were redriven to another endpoint, or under another identity. It runs
-- as its owner: who may not read what the audit holds may know this.
create function sagabus.moved_v1() returns setof bigint
language sql stable security definer set search_path = pg_catalog
as $$
    select i.dead_letter_id from sagabus.operation o
    join sagabus.operation_item i on i.operation_id = o.id and i.dead_letter_id <= o.place
    join sagabus.dead_letter d on d.id = i.dead_letter_id and d.endpoint <> o.send_to
    where o.verb = 'redrive' and o.send_to is not null
    union
    select (e.entry ->> 'id')::bigint from sagabus.audit a
    cross join lateral json_array_elements(convert_from(a.detail, 'UTF8')::json) as e(entry)
    where a.action = 'edit_dead_letter' and e.entry ->> 'sent_as' <> e.entry ->> 'message_id'
$$;

-- The life of one message is looked up, however much history there is. Identities grow with time,
-- so that nearly every entry goes to the end.
create index history_message on sagabus.history (message_id);

-- What an operator does to rows of the table of instances. These functions run as their owner, so
-- that a login needs no right to the data of sagas; `grants.sql` says who may call them.

-- Holds an endpoint or a transport, or lets it go on. The id is the endpoint's, or 1.
create function sagabus.hold_v1(
    p_who text, p_action text, p_why text, p_subject text, p_name text, p_is_held boolean
) returns setof bigint language plpgsql security definer set search_path = pg_catalog
as $$
declare
    v_kind text := '@' || p_subject;
    v_id bigint := 1;
    v_now bigint := sagabus.now_micros();
begin
    if p_subject = 'endpoint' then
        select e.id into v_id from sagabus.endpoint e where e.name = p_name;
    elsif p_subject <> 'transport' then
        raise exception using errcode = '22023', message = 'neither endpoint nor transport';
    end if;
    if p_is_held then
        insert into sagabus.instance (kind, key, version, completed, state, schema_version, data,
            timers, created_at, updated_at)
        select v_kind, p_name, 1, false, 'paused', 1, '{}', '{}', v_now, v_now
        where v_id is not null
        on conflict do nothing;
    else
        delete from sagabus.instance i where i.kind = v_kind and i.key = p_name;
    end if;
    if found then
        insert into sagabus.audit (at, who, action, why, detail)
        values (v_now, p_who, p_action, p_why, convert_to(
            jsonb_build_array(jsonb_build_object(p_subject, p_name))::text, 'UTF8'));
        return query select v_id where v_id is not null;
    end if;
end $$;

-- Moves a schedule from one state to the next, or removes it, where it is to go nowhere.
create function sagabus.change_schedule_v1(
    p_who text, p_action text, p_why text, p_name text, p_from text[], p_to text[]
) returns setof bigint language plpgsql security definer set search_path = pg_catalog
as $$
declare
    v_now bigint := sagabus.now_micros();
    v_from text;
    v_to text;
    v_version bigint;
begin
    select i.state, i.version into v_from, v_version from sagabus.instance i
    where i.kind = '@schedule' and i.key = p_name for update;
    if not found then
        return;
    end if;
    if p_to is null then
        delete from sagabus.instance i where i.kind = '@schedule' and i.key = p_name;
    else
        select m.word into v_to from unnest(p_from, p_to) as m(former, word) where m.former = v_from;
        if v_to is null then
            return;
        end if;
        update sagabus.instance i set state = v_to, version = i.version + 1, updated_at = v_now
        where i.kind = '@schedule' and i.key = p_name returning i.version into v_version;
    end if;
    insert into sagabus.audit (at, who, action, why, detail)
    values (v_now, p_who, p_action, p_why, convert_to(jsonb_build_array(jsonb_strip_nulls(
        jsonb_build_object('schedule', p_name, 'from', v_from, 'to', v_to)))::text, 'UTF8'));
    return next v_version;
end $$;

-- Removes timers that are not due yet, and takes them out of their instances, which are locked
-- first, as in the commit call.
create function sagabus.cancel_timers_v1(p_who text, p_action text, p_why text, p_ids bigint[])
returns setof bigint language sql security definer set search_path = pg_catalog
as $$
    with owners as materialized (
        select i.kind, i.key from sagabus.instance i where (i.kind, i.key) in (
            select o.timer_kind, o.timer_key from sagabus.outbox o
            where o.id = any (p_ids) and o.timer_name is not null
        ) order by i.kind, i.key for no key update
    ), gone as (
        delete from sagabus.outbox o
        where o.id = any (p_ids) and o.timer_name is not null and o.parked is null
            and o.due_at > sagabus.now_micros() and (select count(*) from owners) >= 0
        returning o.id, o.timer_kind, o.timer_key, o.timer_name, o.message_id, o.message_type
    ), moved as (
        update sagabus.instance i set version = i.version + 1, updated_at = sagabus.now_micros(),
            timers = convert_to((convert_from(i.timers, 'UTF8')::jsonb - g.names)::text, 'UTF8')
        from (
            select timer_kind, timer_key, array_agg(timer_name) as names from gone
            group by timer_kind, timer_key
        ) g where i.kind = g.timer_kind and i.key = g.timer_key
    ), noted as (
        insert into sagabus.audit (at, who, action, why, detail)
        select sagabus.now_micros(), p_who, p_action, p_why, convert_to(jsonb_agg(
            jsonb_build_object('id', d.id, 'message_id', d.message_id, 'message_type',
                d.message_type, 'timer', d.timer_name) order by d.id)::text, 'UTF8')
        from gone d having count(*) > 0
    )
    select id from gone order by id
$$;

-- Asks a live host of an endpoint to do something. The id is the errand's version; none where one
-- is under way.
create function sagabus.ask_host(
    p_who text, p_action text, p_why text, p_endpoint text, p_data bytea, p_detail bytea
) returns setof bigint language sql set search_path = pg_catalog
as $$
    with t as materialized (select sagabus.now_micros() as now),
    done as (
        insert into sagabus.instance as i (kind, key, version, completed, state, schema_version, data,
            timers, created_at, updated_at)
        select '@errand', e.name, 1, false, 'asked', 1, p_data, '{}'::bytea, t.now, t.now
        from sagabus.endpoint e, t where e.name = p_endpoint
        on conflict (kind, key) do update set version = i.version + 1, completed = false,
            state = excluded.state, data = excluded.data, updated_at = excluded.updated_at
            where i.completed or i.updated_at < excluded.updated_at - 60000000
        returning i.version as id
    ), noted as (
        insert into sagabus.audit (at, who, action, why, detail)
        select t.now, p_who, p_action, p_why, p_detail from done, t
    )
    select id from done
$$;

-- What operators may ask, and what takes an admin: the word in the errand decides.
create function sagabus.rehearse_v1(
    p_who text, p_action text, p_why text, p_endpoint text, p_data bytea, p_detail bytea
) returns setof bigint language plpgsql security definer set search_path = pg_catalog
as $$
begin
    if (convert_from(p_data, 'UTF8')::json -> 'task' -> 'rehearse') is null then
        raise exception using errcode = '22023', message = 'not a rehearsal';
    end if;
    return query select * from sagabus.ask_host(p_who, p_action, p_why, p_endpoint, p_data, p_detail);
end $$;

create function sagabus.transition_v1(
    p_who text, p_action text, p_why text, p_endpoint text, p_data bytea, p_detail bytea
) returns setof bigint language sql security definer set search_path = pg_catalog
as $$
    select * from sagabus.ask_host(p_who, p_action, p_why, p_endpoint, p_data, p_detail)
$$;

revoke execute on function
    sagabus.ask_host(text, text, text, text, bytea, bytea),
    sagabus.rehearse_v1(text, text, text, text, bytea, bytea),
    sagabus.transition_v1(text, text, text, text, bytea, bytea),
    sagabus.hold_v1(text, text, text, text, text, boolean),
    sagabus.change_schedule_v1(text, text, text, text, text[], text[]),
    sagabus.cancel_timers_v1(text, text, text, bigint[])
from public;

update sagabus.store set schema_version = 20;
