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

update sagabus.store set schema_version = 19;
