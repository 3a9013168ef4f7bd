-- The commit call for a group in which nobody loses, which nearly every group is: the same steps as
-- in `commit_v1`, by counts alone. Where one is not what was asked for, nothing is written, and the
-- caller asks `commit_v1`, which finds out who lost. The settings are explained there, too.
--
-- A server makes every expression of a function anew in every transaction, so what only other groups
-- have is left out: order, timers, times, identities that were given, dead letters, merged messages,
-- settles that keep their row.
create function sagabus.commit_smooth_v1(
    p_routes bigint,           -- by which messages were placed; null: none were
    p_lease bigint,
    g_id bigint[], g_epoch int[], -- rows that go: settled ones, and sources
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
                delete from sagabus.outbox o using unnest(g_id, g_epoch, g_settled)
                    as g(id, epoch, settled)
                where o.id = g.id and o.epoch = g.epoch
                    and (g.settled or coalesce(o.parked, '') = '')
                returning g.settled, o.destination, o.key, o.per_key and o.parked is null as in_line
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

-- Claims rows of endpoints, as `claim_v1` does, which is left for transports and for hosts of the
-- release before. What is different: rows are updated where they lie, without looking them up again
-- (they are locked, so they stay there); and a claim may begin where the one before it ended. Of a
-- long backlog the index has an entry for each row that was claimed, until a vacuum: whoever begins
-- at the front steps over all of them in every claim.
create function sagabus.claim_v2(
    c_destinations text[], c_limits int[],
    c_since bigint,            -- where the claim before this one went to; null: nowhere
    c_hot boolean, c_lease bigint
) returns table (
    id bigint, epoch int, destination text, message_id uuid, message_type text, key text,
    headers bytea, body bytea, starts int, failures int, solo_starts int, attempts bytea,
    timer_kind text, timer_key text, timer_name text, timer_generation bigint, expired boolean,
    mark bigint                -- how far this claim went
) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_now bigint := sagabus.now_micros();
    v_since bigint := greatest(c_since,
        case when c_hot then v_now - 60000000 else -9223372036854775808 end);
    v_limits int[] := c_limits;
    v_ids bigint[];
    v_places tid[];
    v_mark bigint;
    v_at int[];
    v_in_line bigint[];
    v_held bigint[];
    v_unsure bigint[];
begin
    loop
        -- A lock that lets others refer to the row: whoever writes a follower need not wait.
        select array_agg(r.place), array_agg(r.id), array_agg(d.at::int),
            array_agg(r.id) filter (where r.per_key), greatest(v_mark, max(r.due))
        into v_places, v_ids, v_at, v_in_line, v_mark
        from unnest(c_destinations, v_limits) with ordinality as d(destination, n, at)
        cross join lateral (
            select o.ctid as place, o.available_at as due, o.id, o.per_key from sagabus.outbox o
            where o.destination = d.destination and o.parked is null
              and o.available_at <= v_now and o.available_at > v_since
            order by o.available_at limit d.n
            for no key update skip locked
        ) r;
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
                end if;
            end loop;
            v_places := array(select c.place from unnest(v_places, v_ids) as c(place, id)
                where c.id <> all (v_held));
        end if;
        return query
        update sagabus.outbox o set
            epoch = o.epoch + 1, starts = o.starts + 1, available_at = v_now + c_lease
        where o.ctid = any (v_places)
        returning o.id, o.epoch, o.destination, o.message_id, o.message_type, o.key, o.headers,
            o.body, o.starts, o.failures, o.solo_starts, o.attempts, o.timer_kind, o.timer_key,
            o.timer_name, o.timer_generation, coalesce(o.expires_at <= v_now, false), v_mark;
        exit when v_held is null or 0 >= all (v_limits) or sagabus.now_micros() > v_now + 4000;
    end loop;
end $$;

update sagabus.store set schema_version = 24;
