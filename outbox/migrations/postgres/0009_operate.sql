-- What operators change, and how they find what they look for.

-- Finds the stub of a dead letter.
create function sagabus.stub_v1(p_endpoint text, p_key text, p_message uuid) returns bigint
language plpgsql stable
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_id bigint;
begin
    select o.id into v_id from sagabus.outbox o
    where o.destination = '@' || p_endpoint and o.key = p_key and o.per_key and o.parked is null
      and o.available_at = sagabus.never_micros() and o.message_id = p_message
    order by o.id limit 1;
    return v_id;
end $$;

-- Reads the text of the last failed try of a row; null where it cannot be read.
create function sagabus.last_error_v1(p_attempts bytea) returns text language plpgsql immutable
as $$
begin
    -- No text of this server has a NUL.
    return replace(convert_from(p_attempts, 'UTF8'), '\u0000', '\ufffd')::json -> -1 ->> 'error';
exception when data_exception or program_limit_exceeded then
    return null;
end $$;

-- Deals with dead letters that are open, in the order of their ids: redriven, each is a row of its
-- endpoint again, in the place that its stub held, else the last; discarded, or redriven to another
-- endpoint, it makes way.
create function sagabus.close_dead_letters_v1(
    p_who text, p_action text, p_why text, p_ids bigint[], p_status text, p_to text,
    p_operation bigint
) returns table (id bigint) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_now bigint := sagabus.now_micros();
    v_dead record;
    v_to text;
    v_stub bigint;
    v_done bigint[] := '{}';
    v_destinations text[] := '{}';
    v_keys text[] := '{}';
begin
    for v_dead in
        select d.* from sagabus.dead_letter d where d.id = any (p_ids) and d.status = 'open'
        order by d.id for update
    loop
        update sagabus.dead_letter d set status = p_status where d.id = v_dead.id;
        v_to := coalesce(p_to, v_dead.endpoint);
        v_stub := case when v_dead.key is not null
            then sagabus.stub_v1(v_dead.endpoint, v_dead.key, v_dead.message_id) end;
        if v_stub is not null and p_status = 'redriven' and v_to = v_dead.endpoint then
            update sagabus.outbox o set
                message_type = v_dead.message_type, headers = v_dead.headers, body = v_dead.body,
                available_at = v_now, created_at = v_now
            where o.id = v_stub;
        else
            if v_stub is not null then
                delete from sagabus.outbox o where o.id = v_stub;
                v_destinations := v_destinations || ('@' || v_dead.endpoint);
                v_keys := v_keys || v_dead.key;
            end if;
            if p_status = 'redriven' then
                insert into sagabus.outbox (message_id, message_type, destination, key, per_key,
                    headers, body, available_at, created_at)
                select v_dead.message_id, v_dead.message_type, '@' || v_to, v_dead.key,
                    v_dead.key is not null and coalesce((
                        select e.per_key from sagabus.endpoint e where e.name = v_to
                    ), false), v_dead.headers, v_dead.body, v_now, v_now;
            end if;
        end if;
        v_done := v_done || v_dead.id;
    end loop;
    if v_done = '{}' then
        return;
    end if;
    perform sagabus.pull_v1(v_destinations, v_keys);
    insert into sagabus.audit (at, who, action, why, operation_id, detail)
    select v_now, p_who, p_action, p_why, p_operation, convert_to(jsonb_agg(jsonb_build_object(
        'id', d.id, 'message_id', d.message_id, 'message_type', d.message_type,
        'endpoint', d.endpoint) order by d.id)::text, 'UTF8')
    from sagabus.dead_letter d where d.id = any (v_done);
    return query select unnest(v_done);
end $$;

-- Opens discarded dead letters again; of two that ask for one place, the later stays as it is.
create function sagabus.restore_dead_letters_v1(
    p_who text, p_action text, p_why text, p_ids bigint[], p_operation bigint
) returns table (id bigint) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_done bigint[];
begin
    with done as (
        update sagabus.dead_letter d set status = 'open'
        where d.id = any (p_ids) and d.status = 'discarded' and not exists (
            select 1 from sagabus.dead_letter o where o.message_id = d.message_id
            and o.endpoint = d.endpoint
            and (o.status = 'open'
                or o.id < d.id and o.status = 'discarded' and o.id = any (p_ids)))
        returning d.id
    )
    select array_agg(done.id order by done.id) into v_done from done;
    insert into sagabus.audit (at, who, action, why, operation_id, detail)
    select sagabus.now_micros(), p_who, p_action, p_why, p_operation,
        convert_to(jsonb_agg(jsonb_build_object(
            'id', d.id, 'message_id', d.message_id, 'message_type', d.message_type,
            'endpoint', d.endpoint) order by d.id)::text, 'UTF8')
    from sagabus.dead_letter d where d.id = any (v_done) having count(*) > 0;
    return query select unnest(v_done);
end $$;

-- Redrives one dead letter with another identity and body, where its body is still what the
-- operator saw: in the place that its stub held, else the last. The dead letter keeps what it was.
create function sagabus.edit_dead_letter_v1(
    p_who text, p_action text, p_why text, p_id bigint, p_message uuid, p_before bytea,
    p_after bytea, p_detail bytea
) returns table (id bigint) language plpgsql
as $$
#variable_conflict use_column
declare
    v_now bigint := sagabus.now_micros();
    v_dead sagabus.dead_letter;
    v_stub bigint;
begin
    update sagabus.dead_letter d set status = 'redriven'
    where d.id = p_id and d.status = 'open' and d.body = p_before returning d.* into v_dead;
    if not found then
        return;
    end if;
    v_stub := case when v_dead.key is not null
        then sagabus.stub_v1(v_dead.endpoint, v_dead.key, v_dead.message_id) end;
    if v_stub is not null then
        update sagabus.outbox o set
            message_id = p_message, message_type = v_dead.message_type, headers = v_dead.headers,
            body = p_after, available_at = v_now, created_at = v_now
        where o.id = v_stub;
    else
        insert into sagabus.outbox (message_id, message_type, destination, key, per_key, headers,
            body, available_at, created_at)
        select p_message, v_dead.message_type, '@' || v_dead.endpoint, v_dead.key,
            v_dead.key is not null and coalesce((
                select e.per_key from sagabus.endpoint e where e.name = v_dead.endpoint
            ), false), v_dead.headers, p_after, v_now, v_now;
    end if;
    insert into sagabus.audit (at, who, action, why, detail)
    values (v_now, p_who, p_action, p_why, convert_to(jsonb_build_array(
        convert_from(p_detail, 'UTF8')::jsonb || jsonb_build_object('id', v_dead.id, 'message_id',
        v_dead.message_id, 'message_type', v_dead.message_type, 'endpoint', v_dead.endpoint)
        )::text, 'UTF8'));
    return query select v_dead.id;
end $$;

-- Does with rows what the action says, and leaves out those for which it means nothing. The next epoch
-- of a row that a host has in hand makes what that host commits with it count for nothing; whoever
-- stood behind what goes aside goes on.
create function sagabus.change_rows_v1(
    p_who text, p_action text, p_why text, p_ids bigint[], p_to text, p_operation bigint
) returns setof bigint language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now bigint;
    v_done bigint[];
    v_places text[];
    v_destinations text[];
    v_keys text[];
    v_detail jsonb;
begin
    -- In the order of their ids, as the commit call has them.
    perform 1 from sagabus.outbox o where o.id = any (p_ids) order by o.id for update;
    v_now := sagabus.now_micros();
    -- What has more starts than failures is in hand, or was when its host died. A command that nobody
    -- took goes to the endpoint that takes it by now.
    select array_agg(o.id order by o.id),
        array_agg(coalesce(p_to, '@' || t.name, o.destination) order by o.id),
        array_agg(o.destination) filter (where o.per_key and o.parked is null),
        array_agg(o.key) filter (where o.per_key and o.parked is null),
        jsonb_agg(jsonb_strip_nulls(jsonb_build_object('id', o.id, 'message_id', o.message_id,
            'message_type', o.message_type, 'destination', o.destination, 'to', p_to))
            order by o.id)
    into v_done, v_places, v_destinations, v_keys, v_detail
    from sagabus.outbox o
    cross join lateral (
        select o.parked is null and o.timer_name is null
            and o.available_at < sagabus.never_micros() as is_moving
    ) m
    left join lateral (
        select e.name from sagabus.subscription s
        join sagabus.endpoint e on e.id = s.endpoint_id
        where p_action = 'release_rows' and o.destination like '?%' and s.kind = 'command'
            and s.message_type = o.message_type
        limit 1
    ) t on true
    where o.id = any (p_ids) and case p_action
        when 'park_rows' then m.is_moving
        when 'expedite_rows' then m.is_moving and o.starts <= o.failures and o.available_at > v_now
        when 'discard_rows' then o.parked is not null
        when 'purge_rows' then o.parked is not null or m.is_moving
        when 'release_rows' then o.parked is not null
            and (o.destination not like '?%' or t.name is not null)
        when 'readdress_rows' then o.parked is not null and (p_to not like '@%' or exists (
            select 1 from sagabus.endpoint e where '@' || e.name = p_to))
    end;
    if v_done is null then
        return;
    end if;
    if p_action = 'park_rows' then
        update sagabus.outbox o set parked = 'operator', epoch = o.epoch + 1
        where o.id = any (v_done);
        perform sagabus.pull_v1(v_destinations, v_keys);
    elsif p_action in ('discard_rows', 'purge_rows') then
        delete from sagabus.outbox o where o.id = any (v_done);
        perform sagabus.pull_v1(v_destinations, v_keys);
    elsif p_action = 'expedite_rows' then
        update sagabus.outbox o set available_at = v_now,
            due_at = case when o.due_at > v_now then v_now else o.due_at end
        where o.id = any (v_done);
    else
        update sagabus.outbox o set parked = null, starts = 0, failures = 0, solo_starts = 0,
            attempts = null, destination = f.place, available_at = greatest(v_now, o.due_at),
            per_key = case
                when f.per_key is null or p_to is null and f.place = o.destination then o.per_key
                else f.per_key and o.key is not null and coalesce(o.due_at, 0) <= v_now
            end
        from (
            select p.id, p.place, e.per_key from unnest(v_done, v_places) as p(id, place)
            left join sagabus.endpoint e on '@' || e.name = p.place
        ) f where o.id = f.id;
    end if;
    insert into sagabus.audit (at, who, action, why, operation_id, detail)
    values (v_now, p_who, p_action, p_why, p_operation, convert_to(v_detail::text, 'UTF8'));
    return query select unnest(v_done);
end $$;

-- Puts messages that brokers took, and that are kept, into the outbox again: as they were, in the
-- order in which they were written.
create function sagabus.republish_v1(
    p_who text, p_action text, p_why text, p_ids bigint[], p_operation bigint
) returns setof bigint language sql
as $$
    with t as materialized (select sagabus.now_micros() as now),
    done as (
        delete from sagabus.sent s where s.id = any (p_ids) returning s.*
    ), written as (
        insert into sagabus.outbox (message_id, message_type, destination, key, per_key, headers,
            body, available_at, expires_at, created_at)
        select d.message_id, d.message_type, d.destination, d.key, d.per_key, d.headers, d.body,
            t.now, d.expires_at, t.now
        from done d, t order by d.id
    ), noted as (
        insert into sagabus.audit (at, who, action, why, operation_id, detail)
        select t.now, p_who, p_action, p_why, p_operation, convert_to(jsonb_agg(jsonb_build_object(
            'id', d.id, 'message_id', d.message_id, 'message_type', d.message_type,
            'destination', d.destination) order by d.id)::text, 'UTF8')
        from done d, t group by t.now
    )
    select d.id from done d order by d.id
$$;

-- Takes what is next in an operation and says how far it is: one transaction, so that whoever is
-- killed leaves a step whole or not made.
create function sagabus.step_operation_v1(
    p_id bigint, p_epoch int, p_count int, p_lease bigint
) returns setof sagabus.operation language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now bigint := sagabus.now_micros();
    v_operation sagabus.operation;
    v_ids bigint[];
    v_changed bigint;
begin
    select * into v_operation from sagabus.operation o
    where o.id = p_id and o.epoch = p_epoch and o.state = 'running' for update;
    if not found then
        return;
    end if;
    select coalesce(array_agg(next.id order by next.id), '{}') into v_ids from (
        select i.item_id as id from sagabus.operation_item i
        where i.operation_id = p_id and i.item_id > v_operation.place
        order by i.item_id limit p_count
    ) next;
    if v_operation.verb = 'restore' then
        select count(*) into v_changed from sagabus.restore_dead_letters_v1(
            v_operation.who, 'restore_dead_letters', v_operation.why, v_ids, p_id);
    elsif v_operation.verb = 'republish_sent' then
        select count(*) into v_changed from sagabus.republish_v1(
            v_operation.who, v_operation.verb, v_operation.why, v_ids, p_id);
    elsif v_operation.verb like '%\_rows' then
        select count(*) into v_changed from sagabus.change_rows_v1(
            v_operation.who, v_operation.verb, v_operation.why, v_ids, v_operation.send_to, p_id);
    else
        select count(*) into v_changed from sagabus.close_dead_letters_v1(
            v_operation.who, v_operation.verb || '_dead_letters', v_operation.why, v_ids,
            case v_operation.verb when 'redrive' then 'redriven' else 'discarded' end,
            v_operation.send_to, p_id);
    end if;
    return query update sagabus.operation o set
        taken = o.taken + cardinality(v_ids), changed = o.changed + v_changed,
        place = coalesce(v_ids[cardinality(v_ids)], o.place),
        state = case when o.taken + cardinality(v_ids) = o.total then 'done' else o.state end,
        lease_until = case when o.taken + cardinality(v_ids) < o.total then v_now + p_lease end,
        updated_at = v_now
    where o.id = p_id returning o.*;
end $$;

-- Removes an endpoint that nothing waits for, with what it takes.
create function sagabus.remove_endpoint_v1(p_who text, p_action text, p_why text, p_name text)
returns table (id bigint) language plpgsql
as $$
declare
    v_id int;
begin
    select e.id into v_id from sagabus.endpoint e where e.name = p_name
        and not exists (select 1 from sagabus.outbox o where o.destination = '@' || p_name)
        and not exists (select 1 from sagabus.dead_letter d
                        where d.status = 'open' and d.endpoint = p_name)
    for update;
    if not found then
        return;
    end if;
    delete from sagabus.subscription s where s.endpoint_id = v_id;
    delete from sagabus.endpoint e where e.id = v_id;
    update sagabus.store set routes_version = routes_version + 1;
    insert into sagabus.audit (at, who, action, why, detail)
    values (sagabus.now_micros(), p_who, p_action, p_why, convert_to(
        jsonb_build_array(jsonb_build_object('endpoint', p_name))::text, 'UTF8'));
    return query select v_id::bigint;
end $$;

-- Lists the dead letters that were redriven to another endpoint, or under another identity. It runs
-- as its owner: who may not read what the audit holds may know this.
create function sagabus.moved_v1() returns setof bigint
language sql stable parallel safe security definer set search_path = pg_catalog
as $$
    select i.item_id from sagabus.operation o
    join sagabus.operation_item i on i.operation_id = o.id and i.item_id <= o.place
    join sagabus.dead_letter d on d.id = i.item_id and d.endpoint <> o.send_to
    where o.verb = 'redrive' and o.send_to is not null
    union
    select (e.entry ->> 'id')::bigint from sagabus.audit a
    cross join lateral json_array_elements(convert_from(a.detail, 'UTF8')::json) as e(entry)
    where a.action = 'edit_dead_letter' and e.entry ->> 'sent_as' <> e.entry ->> 'message_id'
$$;

-- Lists the messages whose rows operators took away from an endpoint: removed, or sent elsewhere.
-- It runs as its owner: who may not read what the audit holds may know this.
create function sagabus.taken_away_v1() returns table (
    endpoint text, message_id uuid, message_type text, action text
) language sql stable parallel safe security definer set search_path = pg_catalog
as $$
    select substr(e.entry ->> 'destination', 2), (e.entry ->> 'message_id')::uuid,
        max(e.entry ->> 'message_type'), max(a.action)
    from sagabus.audit a
    cross join lateral json_array_elements(convert_from(a.detail, 'UTF8')::json) as e(entry)
    where a.action in ('discard_rows', 'purge_rows', 'readdress_rows')
        and e.entry ->> 'destination' like '@%'
    group by 1, 2
$$;

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

-- Completes the audit entry by which a host was asked to move an instance. It runs as its owner: who
-- may call it may write over nothing.
create function sagabus.note_transition_v1(
    p_who text, p_kind text, p_key text, p_seen bigint, p_outcome bytea, p_version bigint
) returns setof bigint language sql security definer set search_path = pg_catalog
as $$
    update sagabus.audit a set outcome = p_outcome
    where a.outcome is null and a.id = (
        select e.id from sagabus.audit e
        cross join lateral (select convert_from(e.detail, 'UTF8')::json -> 0 as one) asked
        where e.action in ('transition_instance', 'cancel_instance')
            and e.who = p_who and e.outcome is null
            and asked.one ->> 'kind' = p_kind and asked.one ->> 'key' = p_key
            and (asked.one ->> 'version')::bigint = p_seen
        order by e.id desc limit 1
    )
    returning p_version
$$;

revoke execute on function
    sagabus.ask_host(text, text, text, text, bytea, bytea),
    sagabus.rehearse_v1(text, text, text, text, bytea, bytea),
    sagabus.transition_v1(text, text, text, text, bytea, bytea),
    sagabus.hold_v1(text, text, text, text, text, boolean),
    sagabus.change_schedule_v1(text, text, text, text, text[], text[]),
    sagabus.cancel_timers_v1(text, text, text, bigint[]),
    sagabus.note_transition_v1(text, text, text, bigint, bytea, bigint)
from public;

update sagabus.store set schema_version = 9;
