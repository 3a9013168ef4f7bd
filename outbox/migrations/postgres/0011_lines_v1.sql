-- A line in which a claim, or a second settle, meets a settle that has not committed. The settings
-- are explained in the commit call.

-- Pulls forward the oldest row of each line that was never claimed, never before its own time. One
-- that was claimed before is leased or backs off: its time is its own. It is looked past, because
-- it may be about to go in another call that cannot see who stands behind it; should it stay, the
-- claim defers the row again.
create or replace function sagabus.pull_v1(p_destinations text[], p_keys text[]) returns boolean
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
                      and n.per_key and n.parked is null and n.epoch = 0
                    order by n.id limit 1)
          and epoch = 0 and available_at > greatest(v_now, due_at);
        v_woke := v_woke or found;
    end loop;
    return v_woke;
end $$;

-- Claims rows of destinations, each up to its limit. Rows that are not the oldest of their line
-- are deferred instead, for at most about 4 ms of one call, so that a long line behind one blocked
-- key costs each claim little. They are pulled forward when their turn comes; the longer they have
-- waited, the longer they are deferred, so that a stuck key costs less with time.
create or replace function sagabus.claim_v1(
    c_destinations text[], c_limits int[], c_total int, c_hot boolean, c_lease bigint
) returns table (
    id bigint, epoch int, destination text, message_id uuid, message_type text, key text,
    headers bytea, body bytea, starts int, failures int, solo_starts int, attempts bytea,
    timer_kind text, timer_key text, timer_name text, timer_generation bigint, expired boolean
) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_now bigint := sagabus.now_micros();
    v_since bigint := case when c_hot then v_now - 60000000 else -9223372036854775808 end;
    v_limits int[] := c_limits;
    v_total int := c_total;
    v_ids bigint[];
    v_at int[];
    v_in_line bigint[];
    v_held bigint[];
    v_unsure bigint[];
begin
    loop
        -- A lock that lets others refer to the row: whoever writes a follower need not wait.
        select array_agg(c.id), array_agg(c.at::int), array_agg(c.id) filter (where c.per_key)
        into v_ids, v_at, v_in_line
        from (
            select r.id, r.per_key, d.at
            from unnest(c_destinations, v_limits) with ordinality as d(destination, n, at)
            cross join lateral (
                select o.id, o.per_key from sagabus.outbox o
                where o.destination = d.destination and o.parked is null
                  and o.available_at <= v_now and o.available_at > v_since
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
            v_ids := array(select c.id from unnest(v_ids) as c(id) where c.id <> all (v_held));
        end if;
        return query
        update sagabus.outbox o set
            epoch = o.epoch + 1, starts = o.starts + 1, available_at = v_now + c_lease
        from unnest(v_ids) as c(id) where o.id = c.id
        returning o.id, o.epoch, o.destination, o.message_id, o.message_type, o.key, o.headers,
            o.body, o.starts, o.failures, o.solo_starts, o.attempts, o.timer_kind, o.timer_key,
            o.timer_name, o.timer_generation, coalesce(o.expires_at <= v_now, false);
        exit when v_held is null or v_total <= 0 or sagabus.now_micros() > v_now + 4000;
    end loop;
end $$;

update sagabus.store set schema_version = 11;
