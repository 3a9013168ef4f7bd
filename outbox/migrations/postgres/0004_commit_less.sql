-- The commit call for what most groups are, for the least work of a server: it makes every expression
-- of a function anew in every transaction, every node of a statement in every execution, and every
-- setting of a function in every call. A call of `commit_v1` for one unit costs twice as much.

-- Takes the row that a unit answers. Looked up under a setting of its own, so that the plan is by
-- the key also where it was made while the table was empty; `coalesce`, so that no index of rows
-- that are not parked can seem as good.
create function sagabus.answer_row_v1(
    p_id bigint, p_epoch int,
    out was_there boolean, out line_destination text, out line_key text
) language plpgsql
set enable_seqscan = off
as $$
begin
    delete from sagabus.outbox o
    where o.id = p_id and o.epoch = p_epoch and coalesce(o.parked, '') = ''
    returning true, o.destination, case when o.per_key then o.key end
    into was_there, line_destination, line_key;
end $$;

-- What ends a handler's own transaction, and most calls of a service with little to do: one unit
-- that answers one message, moves no instance and sends at most one message in no line. The same
-- steps as in `commit_v1`. Null stands for absent. Returns
--   0 or more: committed; the id of the row that was born leased, or 0, times two, plus one where
--              rows became available that were not
--   -1         duplicate: nothing was written
--   -2         the routes are other ones: nothing was written
create function sagabus.commit_one_v1(
    p_routes bigint,           -- by which the message was placed; null: none was
    p_lease bigint,
    p_door smallint,           -- 0 engine, 1 transaction opened for a handler
    b_message uuid, b_endpoint int,
    r_id bigint, r_epoch int,
    o_message uuid, o_type text, o_destination text, o_key text, o_headers bytea, o_body bytea,
    o_leased boolean, o_after bigint, o_at bigint, o_wanted bigint, o_parked text,
    h_endpoint int, h_message uuid, h_type text, h_correlation uuid, h_detail bytea
) returns bigint language plpgsql
as $$
declare
    v_now bigint;
    v_due bigint;
    v_was_there boolean;
    v_destination text;
    v_key text;
    v_leased bigint := 0;
    v_woken int := 0;
begin
    if p_door = 1 and current_setting('sagabus.tx', true) is distinct from 'open' then
        raise exception using errcode = 'SGB01', message = 'the transaction was ended before';
    end if;
    -- Until the transaction ends, which is now: nothing but its commit comes after the call.
    v_now := case when set_config('lock_timeout', '250ms', true) is not null
        then sagabus.now_micros() end;
    if p_routes is not null then
        -- Whoever changes the routes waits until no call that may not know of it is under way.
        perform pg_advisory_xact_lock_shared(5567012019871101);
        if not exists (select from sagabus.store s where s.routes_version = p_routes) then
            return -2;
        end if;
    end if;
    if b_message is not null then
        insert into sagabus.inbox (message_id, endpoint_id, accepted_at)
        values (b_message, b_endpoint, v_now) on conflict do nothing;
        if not found then
            return -1;
        end if;
    else
        select a.was_there, a.line_destination, a.line_key
        into v_was_there, v_destination, v_key
        from sagabus.answer_row_v1(r_id, r_epoch) a;
        if v_was_there is null then
            return -1;
        end if;
    end if;
    if o_message is not null then
        v_due := greatest(v_now, coalesce(o_at, v_now + o_after, v_now));
        if o_leased and o_at is null and o_after is null then
            insert into sagabus.outbox (message_id, message_type, destination, key, headers, body,
                available_at, expires_at, epoch, starts, parked, created_at)
            values (o_message, o_type, o_destination, o_key, o_headers, o_body,
                v_now + p_lease, v_due + o_wanted, 1, 1, o_parked, v_now)
            returning id into v_leased;
        else
            insert into sagabus.outbox (message_id, message_type, destination, key, headers, body,
                available_at, due_at, expires_at, parked, created_at)
            values (o_message, o_type, o_destination, o_key, o_headers, o_body,
                v_due, nullif(v_due, v_now), v_due + o_wanted, o_parked, v_now);
        end if;
    end if;
    if h_message is not null then
        insert into sagabus.history (at, endpoint_id, message_id, message_type, correlation_id,
            detail)
        values (v_now, h_endpoint, h_message, h_type, h_correlation, h_detail);
    end if;
    if v_key is not null then
        v_woken := sagabus.pull_v1(array[v_destination], array[v_key])::int;
    end if;
    return v_leased * 2 + v_woken;
end $$;

-- The commit call for one message that an API sends, in no line and with no other. The same steps as
-- in `commit_v1`, for the least work of a server. Null stands for absent. Returns
--   0 or more: committed; the id of the row that was born leased, or 0, times two. 0 also where the
--              identity was known already: then no row was written
--   -2         the routes are other ones: nothing was written
create function sagabus.send_one_v1(
    p_routes bigint,           -- by which the message was placed
    p_lease bigint,
    p_door smallint,           -- 0 engine, 1 transaction opened by the engine
    b_message uuid, b_endpoint int, -- by which the message is recognised if it is sent again
    o_message uuid, o_type text, o_destination text, o_key text, o_headers bytea, o_body bytea,
    o_leased boolean, o_after bigint, o_at bigint, o_wanted bigint, o_parked text
) returns bigint language plpgsql
as $$
declare
    v_now bigint;
    v_due bigint;
    v_leased bigint := 0;
begin
    if p_door = 1 and current_setting('sagabus.tx', true) is distinct from 'open' then
        raise exception using errcode = 'SGB01', message = 'the transaction was ended before';
    end if;
    -- Until the transaction ends, which is now: nothing but its commit comes after the call.
    v_now := case when set_config('lock_timeout', '250ms', true) is not null
        then sagabus.now_micros() end;
    -- Whoever changes the routes waits until no call that may not know of it is under way.
    perform pg_advisory_xact_lock_shared(5567012019871101);
    if not exists (select from sagabus.store s where s.routes_version = p_routes) then
        return -2;
    end if;
    if b_message is not null then
        insert into sagabus.inbox (message_id, endpoint_id, accepted_at)
        values (b_message, b_endpoint, v_now) on conflict do nothing;
        if not found then
            return 0;
        end if;
    end if;
    v_due := greatest(v_now, coalesce(o_at, v_now + o_after, v_now));
    if o_leased and o_at is null and o_after is null then
        insert into sagabus.outbox (message_id, message_type, destination, key, headers, body,
            available_at, expires_at, epoch, starts, parked, created_at)
        values (o_message, o_type, o_destination, o_key, o_headers, o_body,
            v_now + p_lease, v_due + o_wanted, 1, 1, o_parked, v_now)
        returning id into v_leased;
    else
        insert into sagabus.outbox (message_id, message_type, destination, key, headers, body,
            available_at, due_at, expires_at, parked, created_at)
        values (o_message, o_type, o_destination, o_key, o_headers, o_body,
            v_due, nullif(v_due, v_now), v_due + o_wanted, o_parked, v_now);
    end if;
    return v_leased * 2;
end $$;

-- The commit call for a group in which nobody loses, which nearly every group is: the same steps as
-- in `commit_v1`, by counts alone. Where one is not what was asked for, nothing is written, and the
-- caller asks `commit_v1`, which finds out who lost. The settings are explained there, too.
--
-- A server makes every expression of a function anew in every transaction, so what only other groups
-- have is left out: order, timers, times, identities that were given, dead letters, merged messages,
-- settles that keep their row.
--
-- Rows that go are found by `id = any(..)`, and the place of a row in the sorted list of ids by a
-- binary search, `width_bucket`: a join looks each row up by itself.
create function sagabus.commit_smooth_v1(
    p_routes bigint,           -- by which messages were placed; null: none were
    p_lease bigint,
    g_id bigint[], g_epoch int[], -- rows that go, by id: settled ones, and sources
    g_settled boolean[],       -- null: all are sources
    g_sources bigint,          -- how many are
    b_message uuid[], b_endpoint int[],
    i_kind text[], i_key text[], i_expected bigint[],
    i_creates bigint,          -- how many are expected not to exist
    i_completed boolean[], i_state text[], i_schema int[], i_data bytea[], i_timers bytea[],
    i_origin bytea[],
    o_message uuid[], o_type text[], o_destination text[], o_key text[], o_headers bytea[],
    o_body bytea[],
    o_leased boolean[],        -- null: none wants to be
    o_parked text[],
    h_endpoint int[], h_message uuid[], h_type text[], h_correlation uuid[],
    h_kind text[], h_key text[], h_version bigint[], h_detail bytea[],
    out leased bigint[],       -- per outgoing row; null: none
    out is_stale boolean,      -- the routes are other ones: nothing was written
    out is_lost boolean,       -- somebody lost: nothing was written
    out has_woken boolean      -- rows became available that were not
) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
set lock_timeout = '250ms'
as $$
#variable_conflict use_column
declare
    v_now bigint := sagabus.now_micros();
    v_got bigint;
    v_born bigint;
    v_destinations text[];
    v_keys text[];
begin
    is_lost := false;
    has_woken := false;
    if p_routes is not null then
        -- Whoever changes the routes waits until no call that may not know of it is under way.
        perform pg_advisory_xact_lock_shared(5567012019871101);
        is_stale := (select s.routes_version <> p_routes from sagabus.store s);
        if is_stale then
            return;
        end if;
    end if;
    begin
        if g_id is not null then
            with gone as (
                delete from sagabus.outbox o
                where o.id = any (g_id) and o.epoch = g_epoch[width_bucket(o.id, g_id)]
                    and (g_settled[width_bucket(o.id, g_id)] or coalesce(o.parked, '') = '')
                returning g_settled[width_bucket(o.id, g_id)] as settled, o.destination, o.key,
                    o.per_key and o.parked is null as in_line
            )
            select count(*) filter (where g.settled is not true),
                array_agg(g.destination) filter (where g.in_line),
                array_agg(g.key) filter (where g.in_line)
            into v_got, v_destinations, v_keys from gone g;
            if v_got <> g_sources then
                raise exception using errcode = 'SGB02';
            end if;
        end if;
        if b_message is not null then
            insert into sagabus.inbox (message_id, endpoint_id, accepted_at)
            select b.message, b.endpoint, v_now
            from unnest(b_message, b_endpoint) as b(message, endpoint)
            on conflict do nothing;
            get diagnostics v_got = row_count;
            if v_got <> cardinality(b_message) then
                raise exception using errcode = 'SGB02';
            end if;
        end if;
        if i_kind is not null then
            with moved as (
                insert into sagabus.instance as t (kind, key, version, completed, state,
                    schema_version, data, timers, origin, created_at, updated_at)
                select i.kind, i.key, i.expected + 1, i.completed, i.state, i.schema, i.data, i.timers,
                    i.origin, v_now, v_now
                from unnest(i_kind, i_key, i_expected, i_completed, i_state, i_schema, i_data,
                    i_timers, i_origin) as i(kind, key, expected, completed, state, schema, data,
                    timers, origin)
                on conflict (kind, key) do update set
                    version = excluded.version, completed = excluded.completed,
                    state = excluded.state, schema_version = excluded.schema_version,
                    data = excluded.data, timers = excluded.timers, origin = excluded.origin,
                    updated_at = excluded.updated_at
                where t.version = excluded.version - 1
                returning t.xmax = 0 as born
            )
            select count(*), count(*) filter (where m.born) into v_got, v_born from moved m;
            if v_got <> cardinality(i_kind) or v_born <> i_creates then
                raise exception using errcode = 'SGB02';
            end if;
        end if;
        if o_message is not null then
            with written as (
                insert into sagabus.outbox (message_id, message_type, destination, key, headers, body,
                    available_at, epoch, starts, parked, created_at)
                select o.message, o.type, o.destination, o.key, o.headers, o.body,
                    case when o.leased then v_now + p_lease else v_now end,
                    coalesce(o.leased, false)::int, coalesce(o.leased, false)::int, o.parked, v_now
                from unnest(o_message, o_type, o_destination, o_key, o_headers, o_body, o_leased,
                    o_parked) as o(message, type, destination, key, headers, body, leased, parked)
                returning id, epoch
            )
            select array_agg(case when w.epoch = 1 then w.id end) into leased from written w;
        end if;
        if h_message is not null then
            insert into sagabus.history (at, endpoint_id, message_id, message_type, correlation_id,
                kind, key, version, detail)
            select v_now, h.endpoint, h.message, h.type, h.correlation, h.kind, h.key, h.version,
                h.detail
            from unnest(h_endpoint, h_message, h_type, h_correlation, h_kind, h_key, h_version,
                h_detail) as h(endpoint, message, type, correlation, kind, key, version, detail);
        end if;
    exception when sqlstate 'SGB02' then
        is_lost := true;
        leased := null;
        return;
    end;
    if v_keys is not null then
        has_woken := sagabus.pull_v1(v_destinations, v_keys);
    end if;
end $$;

-- Removes rows that are settled, each at its epoch; the others are somebody else's by now.
create function sagabus.settle_v1(
    g_id bigint[],             -- from the lowest to the highest
    g_epoch int[]
) returns boolean              -- rows became available that were not
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_destinations text[];
    v_keys text[];
begin
    with gone as (
        delete from sagabus.outbox o
        where o.id = any (g_id) and o.epoch = g_epoch[width_bucket(o.id, g_id)]
        returning o.destination, o.key, o.per_key and o.parked is null as in_line
    )
    select array_agg(g.destination), array_agg(g.key) into v_destinations, v_keys
    from gone g where g.in_line;
    return v_keys is not null and sagabus.pull_v1(v_destinations, v_keys);
end $$;

update sagabus.store set schema_version = 4;
