-- The commit call: many units of work and settles in one transaction, with an outcome per unit.
--
-- Rules of this file. Every set of rows comes as one array per column, sorted by the caller by the
-- key under which the rows are locked, so that two calls never wait for each other in a circle.
-- Absent sets are null. Arguments are prefixed by their set: d deletes, s other settles, b inbox
-- rows, r source rows, i instances, t timers that go, o outgoing, h history, f dead letters.
-- Units are numbered from 1. Where a set has one row, its statement takes values instead of arrays:
-- most calls of a service with little to do, and all that end a handler's own transaction.
--
-- The settings on each function keep plans that were made for empty tables from becoming scans of
-- full ones; `jit` would answer the guards' costs with a compilation. A plan is made once per
-- connection: left to itself, the server finds plans for short arrays cheaper than the one for any
-- array, and makes one in every call, which costs several times the work itself.

-- The database's clock in microseconds since 1970-01-01 UTC.
create function sagabus.now_micros() returns bigint language sql volatile
return (extract(epoch from clock_timestamp()) * 1000000)::bigint;

-- The time at which a stub is available: the last microsecond of the year 9999. A dead letter may hold
-- its key: its stub is a row that stands where the message stood in its line, and what comes after it
-- waits as behind any older row.
create function sagabus.never_micros() returns bigint language sql immutable parallel safe
return 253402300799999999;

-- Pulls forward the oldest row of each line that was never claimed, never before its own time. One
-- that was claimed before is leased or backs off: its time is its own. It is looked past, because
-- it may be about to go in another call that cannot see who stands behind it; should it stay, the
-- claim defers the row again. A redriven message was claimed, but not in this life, and its turn may
-- come; a stub is looked at, and holds up what stands behind it.
create function sagabus.pull_v1(p_destinations text[], p_keys text[]) returns boolean
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

-- Says of each outgoing row whether it is first in its line (0), behind a row that will pull it
-- forward (1), or behind one that may be about to go and may not know of it (2).
create function sagabus.behind_v1(
    p_door smallint, p_is_lost boolean[], p_destinations text[], p_keys text[],
    p_in_line boolean[], p_previous int[]
) returns smallint[] language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_states smallint[] := array_fill(0::smallint, array[cardinality(p_in_line)]);
    v_previous int;
    v_older bigint;
begin
    for v_at in 1 .. cardinality(p_in_line) loop
        continue when not p_in_line[v_at] or p_is_lost[v_at];
        v_previous := p_previous[v_at];
        while v_previous is not null and p_is_lost[v_previous] loop
            v_previous := p_previous[v_previous];
        end loop;
        if v_previous is not null then
            v_states[v_at] := 1;
            continue;
        end if;
        select n.id into v_older from sagabus.outbox n
        where n.destination = p_destinations[v_at] and n.key = p_keys[v_at]
          and n.per_key and n.parked is null
        order by n.id desc limit 1;
        continue when v_older is null;
        -- Whoever removes the youngest older row must see the new one, which it pulls forward: it
        -- waits for this lock. Where it was faster, or where the lock would last as long as a
        -- stranger's transaction, the claim decides.
        if p_door <> 2 then
            perform 1 from sagabus.outbox n where n.id = v_older for key share skip locked;
        end if;
        v_states[v_at] := case when p_door <> 2 and found then 1 else 2 end;
    end loop;
    return v_states;
end $$;

create function sagabus.commit_v1(
    p_units int,               -- how many
    p_routes bigint,           -- by which messages were placed; null: none were
    p_lease bigint,
    p_door smallint,           -- 0 engine, 1 transaction opened for a handler, 2 a stranger's
    d_id bigint[], d_epoch int[],
    s_id bigint[], s_epoch int[], s_does smallint[], -- 2 release, 3 park, 4 start solo
    s_after bigint[], s_back int[], s_failures int[], s_attempts bytea[], s_reason text[],
    b_message uuid[], b_endpoint int[], b_unit int[],
    b_place int[],             -- the outgoing row that this identity was given to; null: a source
    r_id bigint[], r_epoch int[], r_unit int[],
    i_unit int[], i_kind text[], i_key text[], i_expected bigint[],
    i_steps int[],             -- null: each moves by one
    i_creates bigint,          -- how many are expected not to exist
    i_completed boolean[], i_state text[], i_schema int[], i_data bytea[], i_timers bytea[],
    i_origin bytea[],
    t_unit int[], t_kind text[], t_key text[], t_name text[],
    o_unit int[], o_message uuid[], o_type text[], o_destination text[], o_key text[],
    o_headers bytea[], o_body bytea[],
    o_in_line boolean[],       -- order is promised; null: nowhere
    o_previous int[],          -- the outgoing row before it in its line
    o_leased boolean[],        -- null: none wants to be
    o_after bigint[], o_at bigint[], o_wanted bigint[],
    o_failures int[], o_attempts bytea[], o_parked text[],
    o_timer_kind text[], o_timer_key text[], o_timer_name text[], o_timer_generation bigint[],
    h_unit int[], h_endpoint int[], h_message uuid[], h_type text[], h_correlation uuid[],
    h_kind text[], h_key text[], h_version bigint[], h_detail bytea[],
    f_unit int[], f_endpoint text[], f_message uuid[], f_type text[], f_reason text[],
    f_key text[], f_kind text[], f_instance text[], f_headers bytea[], f_body bytea[],
    f_attempts bytea[], f_fingerprint text[],
    out outcomes smallint[],   -- null: all committed; else 0 committed, 1 duplicate, 2 conflict
    out leased bigint[],       -- per outgoing row; null: none
    out is_stale boolean,      -- the routes are other ones: nothing was written
    out has_woken boolean      -- rows became available that were not
) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
set lock_timeout = '250ms'
as $$
#variable_conflict use_column
declare
    v_now bigint := sagabus.now_micros();
    v_out smallint[];          -- per unit; null while nobody lost
    v_asked int;
    v_got int;
    v_born int;
    v_next int;
    v_messages uuid[];
    v_endpoints int[];
    v_rows bigint[];
    v_fresh boolean[];         -- per inbox row, whether this call wrote it; null: all
    v_total int[];
    v_won int[];
    v_kinds text[];
    v_keys text[];
    v_borns boolean[];
    v_lost boolean[];          -- per outgoing row; null: none
    v_behind smallint[];
    v_ids bigint[];
    v_due bigint;
    v_id bigint;
    v_is_leased boolean;
    v_is_in_line boolean;
    v_gone_destinations text[];
    v_gone_keys text[];
    v_more_destinations text[];
    v_more_keys text[];
begin
    has_woken := false;
    if p_door = 1 and current_setting('sagabus.tx', true) is distinct from 'open' then
        raise exception using errcode = 'SGB01', message = 'the transaction was ended before';
    end if;
    if p_routes is not null then
        -- Whoever changes the routes waits until no call that may not know of it is under way.
        perform pg_advisory_xact_lock_shared(5567012019871101);
        is_stale := (select s.routes_version <> p_routes from sagabus.store s);
        if is_stale then
            return;
        end if;
    end if;
    if p_units = 0 then
        -- Losing a settle means sending or running once more, which is always possible anyway.
        perform set_config('synchronous_commit', 'off', true);
    end if;

    -- A timer that goes may be in another host's hands: its row is locked before any instance, and
    -- all rows together in the order of their ids.
    if cardinality(t_unit) > 0
        or (cardinality(r_id) > 0 and (cardinality(d_id) > 0 or cardinality(s_id) > 0)) then
        perform 1 from (
            select unnest(d_id) as id union select unnest(s_id) union select unnest(r_id)
            union select o.id from unnest(t_kind, t_key, t_name) as t(kind, key, name)
                join sagabus.outbox o on o.timer_kind = t.kind and o.timer_key = t.key
                    and o.timer_name = t.name
            order by 1
        ) l join sagabus.outbox o on o.id = l.id for update of o;
    end if;

    -- 1. Settles.
    if cardinality(d_id) > 0 then
        with gone as (
            delete from sagabus.outbox o using unnest(d_id, d_epoch) as d(id, epoch)
            where o.id = d.id and o.epoch = d.epoch
            returning o.destination, o.key, o.per_key and o.parked is null as in_line
        )
        select array_agg(g.destination), array_agg(g.key)
        into v_gone_destinations, v_gone_keys from gone g where g.in_line;
    end if;
    if cardinality(s_id) > 0 then
        with settled as (
            update sagabus.outbox o set
                available_at = case when s.does = 2 then v_now + s.after else o.available_at end,
                due_at = case when s.does = 2 then v_now + nullif(s.after, 0) else o.due_at end,
                -- Each recorded failure was a start; also bounds what a group in doubt gives back
                -- when it is settled again.
                starts = case when s.does = 2
                    then greatest(o.starts - s.back, coalesce(s.failures, o.failures))
                    else o.starts end,
                failures = coalesce(s.failures, o.failures),
                attempts = case when s.failures is null then o.attempts else s.attempts end,
                parked = case when s.does = 3 then s.reason else o.parked end,
                solo_starts = case when s.does = 4 then o.solo_starts + 1
                    -- It failed with a word: alone or not, it has not killed its host.
                    when s.does = 2 and s.failures is not null then 0 else o.solo_starts end
            from unnest(s_id, s_epoch, s_does, s_after, s_back, s_failures, s_attempts, s_reason)
                as s(id, epoch, does, after, back, failures, attempts, reason)
            where o.id = s.id and o.epoch = s.epoch
            returning o.destination, o.key, o.per_key and s.does = 3 as leaves,
                s.does = 2 and s.after = 0 as wakes
        )
        select array_agg(g.destination) filter (where g.leaves),
            array_agg(g.key) filter (where g.leaves), bool_or(g.wakes)
        into v_more_destinations, v_more_keys, has_woken from settled g;
        has_woken := coalesce(has_woken, false);
        v_gone_destinations := v_gone_destinations || v_more_destinations;
        v_gone_keys := v_gone_keys || v_more_keys;
    end if;

    -- 2. Sources: rows are held under their epoch, inbox rows are written.
    v_got := 0;
    v_asked := coalesce(cardinality(r_id), 0) + coalesce(cardinality(b_message), 0);
    if cardinality(r_id) = 1 then
        -- `parked` is asked for so that no index of rows that are not parked can seem as good as
        -- the key: of an empty table both are one page, and the plan outlives that.
        perform 1 from sagabus.outbox o
        where o.id = r_id[1] and o.epoch = r_epoch[1] and coalesce(o.parked, '') = '' for update;
        if found then
            v_got := 1;
            v_rows := r_id;
        end if;
    elsif cardinality(r_id) > 1 then
        select array_agg(l.id) into v_rows from (
            select o.id from unnest(r_id, r_epoch) as r(id, epoch)
            join sagabus.outbox o on o.id = r.id and o.epoch = r.epoch
                and coalesce(o.parked, '') = ''
            for update of o
        ) l;
        v_got := coalesce(cardinality(v_rows), 0);
    end if;
    if cardinality(b_message) = 1 then
        insert into sagabus.inbox (message_id, endpoint_id, accepted_at)
        values (b_message[1], b_endpoint[1], v_now) on conflict do nothing;
        if found then
            v_got := v_got + 1;
            v_messages := b_message;
            v_endpoints := b_endpoint;
        end if;
    elsif cardinality(b_message) > 1 then
        with written as (
            insert into sagabus.inbox (message_id, endpoint_id, accepted_at)
            select b.message, b.endpoint, v_now
            from unnest(b_message, b_endpoint) as b(message, endpoint)
            on conflict do nothing returning message_id, endpoint_id
        )
        select array_agg(w.message_id), array_agg(w.endpoint_id)
        into v_messages, v_endpoints from written w;
        v_got := v_got + coalesce(cardinality(v_messages), 0);
    end if;
    if v_got < v_asked then
        v_total := array_fill(0, array[p_units]);
        v_won := v_total;
        v_next := 1;
        for v_at in 1 .. coalesce(cardinality(r_id), 0) loop
            v_total[r_unit[v_at]] := v_total[r_unit[v_at]] + 1;
            if v_rows[v_next] = r_id[v_at] then
                v_won[r_unit[v_at]] := v_won[r_unit[v_at]] + 1;
                v_next := v_next + 1;
            end if;
        end loop;
        v_fresh := array_fill(false, array[coalesce(cardinality(b_message), 0)]);
        v_next := 1;
        for v_at in 1 .. coalesce(cardinality(b_message), 0) loop
            if v_messages[v_next] = b_message[v_at] and v_endpoints[v_next] = b_endpoint[v_at] then
                v_fresh[v_at] := true;
                v_next := v_next + 1;
            elsif b_place[v_at] is not null then
                v_lost := coalesce(v_lost, array_fill(false, array[cardinality(o_unit)]));
                v_lost[b_place[v_at]] := true;
            end if;
            if b_place[v_at] is null then
                v_total[b_unit[v_at]] := v_total[b_unit[v_at]] + 1;
                v_won[b_unit[v_at]] := v_won[b_unit[v_at]] + v_fresh[v_at]::int;
            end if;
        end loop;
        for v_at in 1 .. p_units loop
            if v_won[v_at] < v_total[v_at] then
                v_out := coalesce(v_out, array_fill(0::smallint, array[p_units]));
                v_out[v_at] := case when v_won[v_at] = 0 then 1 else 2 end;
            end if;
        end loop;
    end if;

    -- 3. Instances, by expected version.
    v_asked := coalesce(cardinality(i_unit), 0);
    if v_asked = 1 or i_steps is not null then
        for v_at in 1 .. v_asked loop
            continue when v_out[i_unit[v_at]] <> 0;
            if i_expected[v_at] = 0 then
                insert into sagabus.instance (kind, key, version, completed, state, schema_version,
                    data, timers, origin, created_at, updated_at)
                values (i_kind[v_at], i_key[v_at], coalesce(i_steps[v_at], 1), i_completed[v_at],
                    i_state[v_at], i_schema[v_at], i_data[v_at], i_timers[v_at], i_origin[v_at],
                    v_now, v_now)
                on conflict do nothing;
            else
                update sagabus.instance i set
                    version = i_expected[v_at] + coalesce(i_steps[v_at], 1),
                    completed = i_completed[v_at], state = i_state[v_at],
                    schema_version = i_schema[v_at], data = i_data[v_at],
                    timers = i_timers[v_at], origin = i_origin[v_at], updated_at = v_now
                where i.kind = i_kind[v_at] and i.key = i_key[v_at]
                    and i.version = i_expected[v_at];
            end if;
            if not found then
                v_out := coalesce(v_out, array_fill(0::smallint, array[p_units]));
                v_out[i_unit[v_at]] := 2;
            end if;
        end loop;
    elsif v_asked > 1 then
        with moved as (
            insert into sagabus.instance as t (kind, key, version, completed, state,
                schema_version, data, timers, origin, created_at, updated_at)
            select i.kind, i.key, i.expected + 1, i.completed, i.state, i.schema, i.data, i.timers,
                i.origin, v_now, v_now
            from unnest(i_unit, i_kind, i_key, i_expected, i_completed, i_state, i_schema, i_data,
                i_timers, i_origin) as i(unit, kind, key, expected, completed, state, schema, data,
                timers, origin)
            where v_out is null or v_out[i.unit] = 0
            on conflict (kind, key) do update set
                version = excluded.version, completed = excluded.completed,
                state = excluded.state, schema_version = excluded.schema_version,
                data = excluded.data, timers = excluded.timers, origin = excluded.origin,
                updated_at = excluded.updated_at
            where t.version = excluded.version - 1
            returning t.kind, t.key, t.xmax = 0 as born
        )
        select count(*), count(*) filter (where m.born), array_agg(m.kind), array_agg(m.key),
            array_agg(m.born)
        into v_got, v_born, v_kinds, v_keys, v_borns from moved m;
        if v_out is not null or v_got <> v_asked or v_born <> i_creates then
            v_out := coalesce(v_out, array_fill(0::smallint, array[p_units]));
            v_next := 1;
            for v_at in 1 .. v_asked loop
                continue when v_out[i_unit[v_at]] <> 0;
                if v_kinds[v_next] = i_kind[v_at] and v_keys[v_next] = i_key[v_at] then
                    if v_borns[v_next] and i_expected[v_at] > 0 then
                        -- Born where one was to be moved.
                        delete from sagabus.instance i
                        where i.kind = i_kind[v_at] and i.key = i_key[v_at];
                        v_out[i_unit[v_at]] := 2;
                    end if;
                    v_next := v_next + 1;
                else
                    v_out[i_unit[v_at]] := 2;
                end if;
            end loop;
        end if;
    end if;

    -- 4. What losers took over is taken back.
    if v_out is not null then
        for v_at in 1 .. coalesce(cardinality(b_message), 0) loop
            if v_out[b_unit[v_at]] <> 0 and (v_fresh is null or v_fresh[v_at]) then
                delete from sagabus.inbox i
                where i.message_id = b_message[v_at] and i.endpoint_id = b_endpoint[v_at];
            end if;
        end loop;
        for v_at in 1 .. coalesce(cardinality(o_unit), 0) loop
            if v_out[o_unit[v_at]] <> 0 then
                v_lost := coalesce(v_lost, array_fill(false, array[cardinality(o_unit)]));
                v_lost[v_at] := true;
            end if;
        end loop;
    end if;

    -- 5. Of winners only: timers and source rows go, so that neither holds back what is sent.
    if cardinality(r_id) = 1 and t_unit is null then
        if v_out is null or v_out[r_unit[1]] = 0 then
            delete from sagabus.outbox o where o.id = r_id[1]
            returning array[o.destination], array[o.key], o.per_key and o.parked is null
            into v_more_destinations, v_more_keys, v_is_in_line;
            if v_is_in_line then
                v_gone_destinations := v_gone_destinations || v_more_destinations;
                v_gone_keys := v_gone_keys || v_more_keys;
            end if;
        end if;
    elsif cardinality(t_unit) > 0 or cardinality(r_id) > 0 then
        with timers as (
            select o.id from unnest(t_unit, t_kind, t_key, t_name) as t(unit, kind, key, name)
            join sagabus.outbox o on o.timer_kind = t.kind and o.timer_key = t.key
                and o.timer_name = t.name
            where v_out is null or v_out[t.unit] = 0
        ), gone as (
            delete from sagabus.outbox o using (
                select t.id from timers t
                union select r.id from unnest(r_unit, r_id) as r(unit, id)
                where v_out is null or v_out[r.unit] = 0
            ) g where o.id = g.id
            returning o.destination, o.key, o.per_key and o.parked is null as in_line
        )
        select array_agg(g.destination), array_agg(g.key)
        into v_more_destinations, v_more_keys from gone g where g.in_line;
        v_gone_destinations := v_gone_destinations || v_more_destinations;
        v_gone_keys := v_gone_keys || v_more_keys;
    end if;

    -- 6. Outgoing rows get their ids in the order in which they were placed.
    if cardinality(o_unit) = 1 and o_in_line is null and v_lost is null then
        v_due := greatest(v_now, coalesce(o_at[1], v_now + o_after[1], v_now));
        v_is_leased := coalesce(o_leased[1] and o_at[1] is null and o_after[1] is null, false);
        insert into sagabus.outbox (message_id, message_type, destination, key, per_key,
            headers, body, available_at, due_at, expires_at, epoch, starts, failures, attempts,
            parked, timer_kind, timer_key, timer_name, timer_generation, created_at)
        values (o_message[1], o_type[1], o_destination[1], o_key[1], false, o_headers[1], o_body[1],
            case when v_is_leased then v_now + p_lease else v_due end, nullif(v_due, v_now),
            v_due + o_wanted[1], v_is_leased::int, coalesce(o_failures[1], 0) + v_is_leased::int,
            coalesce(o_failures[1], 0), o_attempts[1], o_parked[1], o_timer_kind[1],
            o_timer_key[1], o_timer_name[1], o_timer_generation[1], v_now)
        returning id into v_id;
        if o_leased is not null then
            leased := array[case when v_is_leased then v_id end];
        end if;
    elsif cardinality(o_unit) > 0 then
        if o_in_line is not null then
            v_behind := sagabus.behind_v1(p_door, v_lost, o_destination, o_key, o_in_line,
                o_previous);
        end if;
        with written as (
            insert into sagabus.outbox (message_id, message_type, destination, key, per_key,
                headers, body, available_at, due_at, expires_at, epoch, starts, failures, attempts,
                parked, timer_kind, timer_key, timer_name, timer_generation, created_at)
            select o.message, o.type, o.destination, o.key, coalesce(o.in_line, false), o.headers,
                o.body,
                case when c.is_leased then v_now + p_lease
                    -- Five to ten minutes: the pull is sure, this only bounds the harm of a
                    -- defect; spread, so that a burst does not come back as one.
                    when o.behind = 1
                    then greatest(c.due_at, v_now + (300000000 * (1 + random()))::bigint)
                    else c.due_at end,
                nullif(c.due_at, v_now), c.due_at + o.wanted, c.is_leased::int,
                -- Each failure that it brings along was a start whose end is known.
                coalesce(o.failures, 0) + c.is_leased::int, coalesce(o.failures, 0), o.attempts,
                o.parked, o.timer_kind, o.timer_key, o.timer_name, o.timer_generation, v_now
            from unnest(o_unit, o_message, o_type, o_destination, o_key, o_headers, o_body,
                o_in_line, o_leased, o_after, o_at, o_wanted, o_failures, o_attempts, o_parked,
                o_timer_kind, o_timer_key, o_timer_name, o_timer_generation, v_lost, v_behind)
                as o(unit, message, type, destination, key, headers, body, in_line, leased, after,
                at, wanted, failures, attempts, parked, timer_kind, timer_key, timer_name,
                timer_generation, lost, behind)
            cross join lateral (
                select greatest(v_now, coalesce(o.at, v_now + o.after, v_now)) as due_at,
                    coalesce(o.leased and o.at is null and o.after is null
                        and coalesce(o.behind, 0) = 0, false) as is_leased
            ) c
            where o.lost is not true
            returning id, epoch
        )
        select array_agg(case when w.epoch = 1 then w.id end) into v_ids from written w;
        if o_leased is not null and v_lost is null then
            leased := v_ids;
        elsif o_leased is not null then
            leased := array_fill(null::bigint, array[cardinality(o_unit)]);
            v_next := 1;
            for v_at in 1 .. cardinality(o_unit) loop
                continue when v_lost[v_at];
                leased[v_at] := v_ids[v_next];
                v_next := v_next + 1;
            end loop;
        end if;
    end if;

    -- 7. For people.
    if cardinality(h_unit) = 1 then
        if v_out is null or v_out[h_unit[1]] = 0 then
            insert into sagabus.history (at, endpoint_id, message_id, message_type, correlation_id,
                kind, key, version, detail)
            values (v_now, h_endpoint[1], h_message[1], h_type[1], h_correlation[1], h_kind[1],
                h_key[1], h_version[1], h_detail[1]);
        end if;
    elsif cardinality(h_unit) > 1 then
        insert into sagabus.history (at, endpoint_id, message_id, message_type, correlation_id,
            kind, key, version, detail)
        select v_now, h.endpoint, h.message, h.type, h.correlation, h.kind, h.key, h.version,
            h.detail
        from unnest(h_unit, h_endpoint, h_message, h_type, h_correlation, h_kind, h_key, h_version,
            h_detail) as h(unit, endpoint, message, type, correlation, kind, key, version, detail)
        where v_out is null or v_out[h.unit] = 0;
    end if;
    if cardinality(f_unit) > 0 then
        insert into sagabus.dead_letter (at, endpoint, message_id, message_type, reason, key, kind,
            instance_key, headers, body, attempts, fingerprint)
        select v_now, f.endpoint, f.message, f.type, f.reason, f.key, f.kind, f.instance, f.headers,
            f.body, f.attempts, f.fingerprint
        from unnest(f_unit, f_endpoint, f_message, f_type, f_reason, f_key, f_kind, f_instance,
            f_headers, f_body, f_attempts, f_fingerprint) as f(unit, endpoint, message, type,
            reason, key, kind, instance, headers, body, attempts, fingerprint)
        where v_out is null or v_out[f.unit] = 0
        on conflict (endpoint, message_id) where status = 'open' do update set
            at = excluded.at, reason = excluded.reason, key = excluded.key, kind = excluded.kind,
            instance_key = excluded.instance_key, headers = excluded.headers, body = excluded.body,
            attempts = excluded.attempts, fingerprint = excluded.fingerprint;
    end if;

    -- 8. Whoever stood behind what went comes next.
    if v_gone_keys is not null then
        has_woken := sagabus.pull_v1(v_gone_destinations, v_gone_keys) or has_woken;
    end if;
    outcomes := v_out;
end $$;

update sagabus.store set schema_version = 2;
