-- The commit call for one unit, and the loader's question about messages alone, for the least work
-- of a server: it makes every expression of a function anew in every transaction, every node of a
-- statement in every execution, and every setting of a function in every call. `commit_one_v1` is
-- left for hosts of the release before.

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
create function sagabus.commit_one_v2(
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

-- Says of each message whether it was taken over at its endpoint, in order: the loader's question
-- where nothing else is asked.
create function sagabus.known_v1(p_endpoints int[], p_messages uuid[])
returns boolean[] language plpgsql stable
set enable_seqscan = off
as $$
declare
    v_known boolean[];
begin
    for v_n in 1 .. cardinality(p_messages) loop
        v_known[v_n] := exists (select from sagabus.inbox b
            where b.message_id = p_messages[v_n] and b.endpoint_id = p_endpoints[v_n]);
    end loop;
    return v_known;
end $$;

update sagabus.store set schema_version = 9;
