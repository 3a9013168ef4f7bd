-- How much waits: asked by each host with its heartbeat, where it has bounds to keep.

-- Counts the rows of endpoints, timers left out, each up to its limit; and finds the destination
-- whose longest due row could have been taken for the longest time. What is due late lies at the end
-- of the index, where timers are: so the count looks at no more than ten thousand rows beyond its
-- limit, whatever is planned for later.
create function sagabus.measure_v1(
    m_destinations text[], m_limits int[], m_oldest boolean,
    out counts int[], out oldest text, out age bigint
) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now bigint := sagabus.now_micros();
begin
    select array_agg(least(c.rows, m.n) order by m.at) into counts
    from unnest(m_destinations, m_limits) with ordinality as m(destination, n, at)
    cross join lateral (
        select count(*)::int as rows from (
            select o.timer_name from sagabus.outbox o
            where o.destination = m.destination and o.parked is null
            order by o.available_at limit m.n + 10000
        ) r where r.timer_name is null
    ) c;
    if not m_oldest then
        return;
    end if;
    with recursive steps(destination) as (
        (select o.destination from sagabus.outbox o where o.parked is null
         order by o.destination limit 1)
        union all
        select (
            select o.destination from sagabus.outbox o
            where o.parked is null and o.destination > s.destination
            order by o.destination limit 1
        )
        from steps s where s.destination is not null
    )
    select s.destination, v_now - f.available_at into oldest, age
    from steps s cross join lateral (
        select o.available_at from sagabus.outbox o
        where o.destination = s.destination and o.parked is null
        order by o.available_at limit 1
    ) f
    where s.destination is not null and f.available_at <= v_now
    order by f.available_at limit 1;
end $$;

update sagabus.store set schema_version = 12;
