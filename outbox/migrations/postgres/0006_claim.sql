-- What is taken, and what is held. The settings are explained in the commit call.

-- Claims rows of endpoints or of one transport. A claim may begin where the one before it ended,
-- destination by destination: of a long backlog the index has an entry for each row that was claimed,
-- until a vacuum, and whoever begins at the front steps over all of them in every claim.
--
-- Rows that are not the oldest of their line are deferred instead, for at most about 4 ms of one call,
-- so that a long line behind one blocked key costs each claim little. They are pulled forward when
-- their turn comes; the longer they have waited, the longer they are deferred, so that a stuck key
-- costs less with time.
--
-- Answers with the rows, and with how far it went at destinations that may have more: one row each
-- without an id, for the sixteen that gave most.
create function sagabus.claim_v1(
    c_prefix text,             -- of a transport (`:archive:`; none: the default one); null: endpoints
    c_bounded text[],          -- a transport's destinations of which fewer are wanted
    c_bounds int[],            -- of them
    c_each int,                -- rows of one of a transport's destinations at most
    c_destinations text[],     -- of endpoints; else those with a mark
    c_limits int[],            -- of endpoints
    c_since bigint[],          -- where the claim before this one ended; null: nowhere
    c_total int,
    c_full int,                -- as many rows of one destination say that it may have more
    c_hot boolean, c_lease bigint
) returns table (
    id bigint, epoch int, destination text, message_id uuid, message_type text, key text,
    headers bytea, body bytea, starts int, failures int, solo_starts int, attempts bytea,
    timer_kind text, timer_key text, timer_name text, timer_generation bigint, expired boolean,
    mark bigint
) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_now bigint := sagabus.now_micros();
    v_oldest bigint := case when c_hot then v_now - 60000000 else -9223372036854775808 end;
    v_destinations text[] := c_destinations;
    v_limits int[] := c_limits;
    v_since bigint[] := c_since;
    v_total int := c_total;
    v_ids bigint[];
    v_places tid[];
    v_due bigint[];
    v_at int[];
    v_in_line bigint[];
    v_held bigint[];
    v_unsure bigint[];
begin
    if c_prefix is not null then
        -- Every destination that begins with the prefix, found by stepping through the index, in an
        -- order that changes so that none is always last. The default transport has no prefix: its
        -- rows are all but those of endpoints and of named transports.
        with recursive steps(destination) as (
            (select o.destination from sagabus.outbox o
             where o.parked is null and o.destination >= c_prefix
             order by o.destination limit 1)
            union all
            select (
                -- The next text after `x` is `x` and the lowest character; after all of `@..` comes
                -- `A`, after all of `:..` comes `;`.
                select o.destination from sagabus.outbox o
                where o.parked is null and o.destination >=
                    case when c_prefix <> '' then s.destination || chr(1)
                         when s.destination like '@%' then 'A'
                         when s.destination like ':%' then ';'
                         else s.destination || chr(1) end
                order by o.destination limit 1
            )
            from steps s where starts_with(s.destination, c_prefix)
        )
        select array_agg(d.destination), array_agg(d.n), array_agg(d.since)
        into v_destinations, v_limits, v_since
        from (
            select s.destination, least(b.n, c_each) as n, m.since from steps s
            left join unnest(c_bounded, c_bounds) as b(destination, n)
                on b.destination = s.destination
            left join unnest(c_destinations, c_since) as m(destination, since)
                on m.destination = s.destination
            where starts_with(s.destination, c_prefix)
              and (c_prefix <> '' or (s.destination not like '@%' and s.destination not like ':%'))
              and (b.n is null or b.n > 0)
            order by random()
        ) d;
    end if;
    loop
        -- A lock that lets others refer to the row: whoever writes a follower need not wait.
        select array_agg(c.place), array_agg(c.id), array_agg(c.due), array_agg(c.at::int),
            array_agg(c.id) filter (where c.per_key)
        into v_places, v_ids, v_due, v_at, v_in_line
        from (
            select r.place, r.id, r.due, r.per_key, d.at
            from unnest(v_destinations, v_limits, v_since) with ordinality
                as d(destination, n, since, at)
            cross join lateral (
                select o.ctid as place, o.id, o.available_at as due, o.per_key
                from sagabus.outbox o
                where o.destination = d.destination and o.parked is null
                  and o.available_at <= v_now and o.available_at > greatest(v_oldest, d.since)
                order by o.available_at limit d.n
                for no key update skip locked
            ) r
            limit v_total
        ) c;
        exit when v_ids is null;
        -- Asked in a statement of its own: it sees whoever went before the locks were had. Whoever
        -- stands before a row and can be locked goes after this call, and pulls; who cannot be
        -- may be about to go, and may have pulled already.
        v_held := null;
        if v_in_line is not null then
            select array_agg(o.id), array_agg(o.id) filter (where h.id is null)
            into v_held, v_unsure
            from unnest(v_in_line) as l(id) join sagabus.outbox o on o.id = l.id
            left join lateral (
                select p.id from sagabus.outbox p
                where p.destination = o.destination and p.key = o.key and p.per_key
                  and p.parked is null and p.id < o.id
                order by p.id desc limit 1 for key share skip locked
            ) h on true
            where exists (select 1 from sagabus.outbox p
                          where p.destination = o.destination and p.key = o.key and p.per_key
                            and p.parked is null and p.id < o.id);
        end if;
        if v_held is not null then
            update sagabus.outbox o set available_at = v_now + case
                when o.id = any (v_unsure) then 20000
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
            v_places := array(select c.place from unnest(v_places, v_ids) as c(place, id)
                where c.id <> all (v_held));
        end if;
        -- They are locked, so they lie where they were found.
        return query
        update sagabus.outbox o set
            epoch = o.epoch + 1, starts = o.starts + 1, available_at = v_now + c_lease
        where o.ctid = any (v_places)
        returning o.id, o.epoch, o.destination, o.message_id, o.message_type, o.key, o.headers,
            o.body, o.starts, o.failures, o.solo_starts, o.attempts, o.timer_kind, o.timer_key,
            o.timer_name, o.timer_generation, coalesce(o.expires_at <= v_now, false), null::bigint;
        if cardinality(v_ids) >= c_full then
            for destination, mark in
                select v_destinations[a.at], max(a.due)
                from unnest(v_at, v_due) as a(at, due) group by a.at order by count(*) desc limit 16
            loop
                return next;
            end loop;
        end if;
        exit when v_held is null or v_total <= 0 or 0 >= all (v_limits)
            or sagabus.now_micros() > v_now + 4000;
    end loop;
end $$;

-- Extends what a host has in hand, and its heartbeat, which may be the last; `p_clock` is what the host takes for now. A row
-- that is being settled at this moment is left alone: waiting for it here could make a circle.
create function sagabus.extend_v1(
    p_host uuid, p_ids bigint[], p_epochs int[], p_lease bigint, p_clock bigint, p_last boolean,
    out rows bigint, out now bigint
) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
    now := sagabus.now_micros();
    update sagabus.host h set
        heartbeat_at = extend_v1.now, behind = extend_v1.now - p_clock,
        stopped_at = case when p_last then extend_v1.now end
    where h.id = p_host;
    with ours as (
        select o.id from unnest(p_ids, p_epochs) as k(id, epoch)
        join sagabus.outbox o on o.id = k.id and o.epoch = k.epoch and o.parked is null
        for no key update of o skip locked
    )
    update sagabus.outbox o set available_at = extend_v1.now + p_lease
    from ours u where o.id = u.id;
    get diagnostics rows = row_count;
end $$;

-- Hands parked commands to their owners, up to so many, and says how many these were. What is not
-- due before later stands in no line, as always.
create function sagabus.adopt_v1(p_limit int) returns int language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
declare
    v_now bigint := sagabus.now_micros();
    v_count int;
begin
    update sagabus.outbox o set
        destination = '@' || a.name, parked = null,
        per_key = a.per_key and o.key is not null and coalesce(o.due_at, 0) <= v_now,
        available_at = greatest(v_now, o.due_at)
    from (
        select n.id, e.name, e.per_key from sagabus.subscription b
        join sagabus.endpoint e on e.id = b.endpoint_id
        join sagabus.outbox n on n.destination = '?' || b.message_type and n.parked = 'no_owner'
        where b.kind = 'command'
        order by n.id limit p_limit for update of n
    ) a where o.id = a.id;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

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

update sagabus.store set schema_version = 6;
