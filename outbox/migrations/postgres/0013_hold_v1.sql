-- A dead letter may hold its key: a stub, which is a row that is never available, stands where the
-- message stood in its line, and what comes after it waits as behind any older row.

-- The time at which a stub is available: the last microsecond of the year 9999.
create function sagabus.never_micros() returns bigint language sql immutable
return 253402300799999999;

-- As before: a row that was claimed is looked past. A redriven message was claimed, but not in this
-- life, and its turn may come; a stub is looked at, and holds up what stands behind it.
create or replace function sagabus.pull_v1(p_destinations text[], p_keys text[]) returns boolean
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now bigint := sagabus.now_micros();
    v_line record;
    v_woke boolean := false;
begin
    for v_line in
        select distinct l.destination, l.key from unnest(p_destinations, p_keys) as l(destination, key)
        order by 1, 2
    loop
        update sagabus.outbox set available_at = greatest(v_now, due_at)
        where id = (select n.id from sagabus.outbox n
                    where n.destination = v_line.destination and n.key = v_line.key
                      and n.per_key and n.parked is null and (n.epoch = 0 or n.starts = 0)
                    order by n.id limit 1)
          and (epoch = 0 or starts = 0) and available_at > greatest(v_now, due_at)
          and available_at < sagabus.never_micros();
        v_woke := v_woke or found;
    end loop;
    return v_woke;
end $$;

-- Says which rows stand in a line, before the commit call removes them.
create function sagabus.lines_v1(k_row bigint[]) returns boolean[] language plpgsql stable
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_in_line boolean[];
begin
    select array_agg(coalesce(o.per_key and o.parked is null, false) order by k.at) into v_in_line
    from unnest(k_row) with ordinality as k(id, at) left join sagabus.outbox o on o.id = k.id;
    return coalesce(v_in_line, '{}');
end $$;

-- Writes the stubs of dead letters: called in the statement of the commit call, with its outcomes,
-- so that both are one transaction and one round trip. A row's stub has its id, so it stands where
-- the row stood, and a later epoch, so nobody who had the row can settle or extend it.
create function sagabus.hold_v1(
    p_outcomes smallint[],     -- null: every unit has won
    p_is_stale boolean,        -- nothing was written
    p_in_line boolean[],       -- as `lines_v1` said
    k_unit int[],
    k_row bigint[], k_epoch int[],   -- null: a broker brought it
    k_message uuid[], k_type text[], k_destination text[], k_key text[]
) returns void language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now bigint := sagabus.now_micros();
begin
    if p_is_stale then
        return;
    end if;
    insert into sagabus.outbox (id, message_id, message_type, destination, key, per_key, headers,
        body, available_at, epoch, created_at)
    overriding system value
    select k.id, k.message, k.type, k.destination, k.key, true, '{}', '', sagabus.never_micros(),
        k.epoch + 1, v_now
    from unnest(k_unit, k_row, k_epoch, k_message, k_type, k_destination, k_key, p_in_line)
        as k(unit, id, epoch, message, type, destination, key, in_line)
    where k.id is not null and k.in_line and (p_outcomes is null or p_outcomes[k.unit] = 0);
    insert into sagabus.outbox (message_id, message_type, destination, key, per_key, headers, body,
        available_at, epoch, created_at)
    select k.message, k.type, k.destination, k.key, true, '{}', '', sagabus.never_micros(), 1, v_now
    from unnest(k_unit, k_row, k_message, k_type, k_destination, k_key)
        as k(unit, id, message, type, destination, key)
    where k.id is null and (p_outcomes is null or p_outcomes[k.unit] = 0)
      and sagabus.stub_v1(substr(k.destination, 2), k.key, k.message) is null;
end $$;

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

-- Deals with dead letters that are open, in the order of their ids: redriven, each is a row of its
-- endpoint again, in the place that its stub held, else the last; discarded, it makes way.
create function sagabus.close_dead_letters_v1(
    p_who text, p_action text, p_why text, p_ids bigint[], p_status text
) returns table (id bigint) language plpgsql
as $$
#variable_conflict use_column
declare
    v_now bigint := sagabus.now_micros();
    v_dead record;
    v_stub bigint;
    v_done bigint[] := '{}';
    v_detail jsonb := '[]';
    v_destinations text[] := '{}';
    v_keys text[] := '{}';
begin
    for v_dead in
        select d.* from sagabus.dead_letter d where d.id = any (p_ids) and d.status = 'open'
        order by d.id for update
    loop
        update sagabus.dead_letter d set status = p_status where d.id = v_dead.id;
        v_stub := case when v_dead.key is not null
            then sagabus.stub_v1(v_dead.endpoint, v_dead.key, v_dead.message_id) end;
        if p_status = 'redriven' and v_stub is not null then
            update sagabus.outbox o set
                message_type = v_dead.message_type, headers = v_dead.headers, body = v_dead.body,
                available_at = v_now, created_at = v_now
            where o.id = v_stub;
        elsif p_status = 'redriven' then
            insert into sagabus.outbox (message_id, message_type, destination, key, per_key,
                headers, body, available_at, created_at)
            select v_dead.message_id, v_dead.message_type, '@' || v_dead.endpoint, v_dead.key,
                v_dead.key is not null and coalesce((
                    select e.per_key from sagabus.endpoint e where e.name = v_dead.endpoint
                ), false), v_dead.headers, v_dead.body, v_now, v_now;
        elsif v_stub is not null then
            delete from sagabus.outbox o where o.id = v_stub;
            v_destinations := v_destinations || ('@' || v_dead.endpoint);
            v_keys := v_keys || v_dead.key;
        end if;
        v_done := v_done || v_dead.id;
        v_detail := v_detail || jsonb_build_object('id', v_dead.id, 'message_id',
            v_dead.message_id, 'message_type', v_dead.message_type, 'endpoint', v_dead.endpoint);
    end loop;
    if v_done = '{}' then
        return;
    end if;
    perform sagabus.pull_v1(v_destinations, v_keys);
    insert into sagabus.audit (at, who, action, why, detail)
    values (v_now, p_who, p_action, p_why, convert_to(v_detail::text, 'UTF8'));
    return query select unnest(v_done);
end $$;

update sagabus.store set schema_version = 13;
