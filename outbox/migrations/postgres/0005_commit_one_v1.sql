-- The commit call for one unit that answers one message, moves no instance and sends at most one
-- message in no line: what ends a handler's own transaction, and most calls of a service with little
-- to do. The same steps as in `commit_v1`, as one statement: a unit without an instance has nothing
-- to take back, so that what it sends and notes can hang on the source that it won. Null stands for
-- absent. A call of `commit_v1` for one unit costs twice as much: a server makes every expression
-- of a function anew in every transaction, and there are about sixty.
create function sagabus.commit_one_v1(
    p_routes bigint,           -- by which the message was placed; null: none was
    p_lease bigint,
    p_door smallint,           -- 0 engine, 1 transaction opened for a handler, 2 a stranger's
    b_message uuid, b_endpoint int,
    r_id bigint, r_epoch int,
    o_message uuid, o_type text, o_destination text, o_key text, o_headers bytea, o_body bytea,
    o_leased boolean, o_after bigint, o_at bigint, o_wanted bigint, o_parked text,
    h_endpoint int, h_message uuid, h_type text, h_correlation uuid, h_detail bytea,
    out outcome smallint,      -- 0 committed, 1 duplicate
    out leased bigint,
    out is_stale boolean,      -- the routes are other ones: nothing was written
    out has_woken boolean      -- rows became available that were not
) language plpgsql
set enable_seqscan = off set jit = off set plan_cache_mode = force_generic_plan
set lock_timeout = '250ms'
as $$
#variable_conflict use_column
declare
    v_now bigint := sagabus.now_micros();
    v_destination text;
    v_key text;
begin
    if p_door = 1 and current_setting('sagabus.tx', true) is distinct from 'open' then
        raise exception using errcode = 'SGB01', message = 'the transaction was ended before';
    end if;
    -- Whoever changes the routes waits until no call that may not know of it is under way. The
    -- statement below sees the routes as they are once this lock is had.
    has_woken := p_routes is not null
        and pg_advisory_xact_lock_shared(5567012019871101) is null;
    with fresh as (
        select 1 from sagabus.store s where p_routes is null or s.routes_version = p_routes
    ), accepted as (
        insert into sagabus.inbox (message_id, endpoint_id, accepted_at)
        select b_message, b_endpoint, v_now from fresh where b_message is not null
        on conflict do nothing
        returning 1
    ), answered as (
        delete from sagabus.outbox o using fresh
        -- Said so that no index of rows that are not parked can seem as good as the key: of an
        -- empty table both are one page, and the plan outlives that.
        where o.id = r_id and o.epoch = r_epoch and coalesce(o.parked, '') = ''
        returning o.destination, o.key, o.per_key
    ), won as (
        select from accepted union all select from answered
    ), sent as (
        insert into sagabus.outbox (message_id, message_type, destination, key, headers, body,
            available_at, due_at, expires_at, epoch, starts, parked, created_at)
        select o_message, o_type, o_destination, o_key, o_headers, o_body,
            case when d.is_leased then v_now + p_lease else d.due_at end, nullif(d.due_at, v_now),
            d.due_at + o_wanted, d.is_leased::int, d.is_leased::int, o_parked, v_now
        from won cross join (
            select greatest(v_now, coalesce(o_at, v_now + o_after, v_now)) as due_at,
                coalesce(o_leased and o_at is null and o_after is null, false) as is_leased
        ) d
        where o_message is not null
        returning id, epoch
    ), noted as (
        insert into sagabus.history (at, endpoint_id, message_id, message_type, correlation_id,
            detail)
        select v_now, h_endpoint, h_message, h_type, h_correlation, h_detail from won
        where h_message is not null
    )
    select not exists (select from fresh), (not exists (select from won))::int,
        (select s.id from sent s where s.epoch = 1),
        (select a.destination from answered a where a.per_key),
        (select a.key from answered a where a.per_key)
    into is_stale, outcome, leased, v_destination, v_key;
    has_woken := v_key is not null
        and sagabus.pull_v1(array[v_destination], array[v_key]);
end $$;

update sagabus.store set schema_version = 5;
