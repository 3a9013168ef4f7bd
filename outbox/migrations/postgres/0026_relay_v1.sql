-- What the relay asks for most. Rows are found by `id = any(..)`, and the place of a row in the sorted
-- list of ids by a binary search, `width_bucket`: a join looks each row up by itself.

-- The commit call for a group in which nobody loses, as it was but for that.
create or replace function sagabus.commit_smooth_v1(
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

-- Claims rows of endpoints or of one transport; those before it, `claim_v1`, `claim_transport_v2` and
-- `claim_v2`, are left for hosts of the release before. A claim may begin where the one before it
-- ended, destination by destination. Of a long backlog the index has an entry for each row that was
-- claimed, until a vacuum: whoever begins at the front steps over all of them in every claim.
--
-- Answers with the rows, and with how far it went at destinations that may have more: one row each
-- without an id, for the sixteen that gave most.
create function sagabus.claim_v3(
    c_prefix text,             -- of a transport (`:archive:`; none: the default one); null: endpoints
    c_except text[],           -- a transport's destinations that are left alone
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
        select array_agg(d.destination), array_agg(c_each), array_agg(d.since)
        into v_destinations, v_limits, v_since
        from (
            select s.destination, m.since from steps s
            left join unnest(c_destinations, c_since) as m(destination, since)
                on m.destination = s.destination
            where starts_with(s.destination, c_prefix)
              and (c_prefix <> '' or (s.destination not like '@%' and s.destination not like ':%'))
              and s.destination <> all (coalesce(c_except, '{}'))
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

update sagabus.store set schema_version = 26;
