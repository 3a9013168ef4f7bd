-- What operators do to rows that wait, and what the accounts say of those that are gone.

-- Sets rows aside for an operator, also those that a host has in hand: their next epoch makes what
-- that host commits with them count for nothing. Whoever stood behind them goes on.
create function sagabus.park_rows_v1(p_who text, p_action text, p_why text, p_ids bigint[])
returns setof bigint language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_done bigint[];
    v_destinations text[];
    v_keys text[];
    v_detail jsonb;
begin
    -- In the order of their ids, as the commit call has them.
    perform 1 from sagabus.outbox o where o.id = any (p_ids) order by o.id for update;
    with done as (
        update sagabus.outbox o set parked = 'operator', epoch = o.epoch + 1
        where o.id = any (p_ids) and o.parked is null and o.timer_name is null
            and o.available_at < sagabus.never_micros()
        returning o.id, o.destination, o.key, o.per_key, o.message_id, o.message_type
    )
    select array_agg(d.id order by d.id), array_agg(d.destination) filter (where d.per_key),
        array_agg(d.key) filter (where d.per_key),
        jsonb_agg(jsonb_build_object('id', d.id, 'message_id', d.message_id, 'message_type',
            d.message_type, 'destination', d.destination) order by d.id)
    into v_done, v_destinations, v_keys, v_detail from done d;
    if v_done is null then
        return;
    end if;
    perform sagabus.pull_v1(v_destinations, v_keys);
    insert into sagabus.audit (at, who, action, why, detail)
    values (sagabus.now_micros(), p_who, p_action, p_why, convert_to(v_detail::text, 'UTF8'));
    return query select unnest(v_done);
end $$;

-- Lists the messages whose rows operators took away from an endpoint: removed, or sent elsewhere.
-- It runs as its owner: who may not read what the audit holds may know this.
create function sagabus.taken_away_v1() returns table (
    endpoint text, message_id uuid, message_type text, action text
) language sql stable security definer set search_path = pg_catalog
as $$
    select substr(e.entry ->> 'destination', 2), (e.entry ->> 'message_id')::uuid,
        max(e.entry ->> 'message_type'), max(a.action)
    from sagabus.audit a
    cross join lateral json_array_elements(convert_from(a.detail, 'UTF8')::json) as e(entry)
    where a.action in ('discard_rows', 'readdress_rows')
        and e.entry ->> 'destination' like '@%'
    group by 1, 2
$$;

update sagabus.store set schema_version = 22;
