-- What is called in the statement of the commit call, so that both are one transaction and one round
-- trip.

-- Replaces the labels of instances that moved: called in the statement of the commit call, with its
-- outcomes, so that both are one transaction and one round trip. First everything goes that is let
-- go, then everything comes: labels may change hands in one group. A label of another running
-- instance is refused by the primary key.
create function sagabus.label_v1(
    p_outcomes smallint[],     -- null: every unit has won
    p_is_stale boolean,        -- nothing was written
    c_unit int[], c_kind text[], c_key text[],
    l_unit int[], l_kind text[], l_key text[], l_name text[], l_value text[]
) returns void language plpgsql
set enable_seqscan = off set jit = off set plan_cache_mode = force_generic_plan
set lock_timeout = '250ms'
as $$
begin
    if p_is_stale then
        return;
    end if;
    delete from sagabus.label l
    using unnest(c_unit, c_kind, c_key) c(unit, kind, key)
    where (p_outcomes is null or p_outcomes[c.unit] = 0)
        and l.kind = c.kind and l.key = c.key;
    -- What is over gives up what another needs.
    delete from sagabus.label l
    using unnest(l_unit, l_kind, l_name, l_value) n(unit, kind, name, value)
    where (p_outcomes is null or p_outcomes[n.unit] = 0)
        and l.kind = n.kind and l.name = n.name and l.value = n.value
        and not exists (
            select 1 from sagabus.instance i
            where i.kind = l.kind and i.key = l.key and not i.completed);
    insert into sagabus.label (kind, name, value, key)
    select n.kind, n.name, n.value, n.key
    from unnest(l_unit, l_kind, l_key, l_name, l_value) n(unit, kind, key, name, value)
    where p_outcomes is null or p_outcomes[n.unit] = 0
    order by n.kind, n.name, n.value;
end
$$;

-- Says which rows stand in a line, before the commit call removes them.
create function sagabus.lines_v1(k_row bigint[]) returns boolean[] language plpgsql stable
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_in_line boolean[];
begin
    select array_agg(coalesce(o.per_key and o.parked is null, false) order by k.at) into v_in_line
    from unnest(k_row) with ordinality as k(id, at) left join sagabus.outbox o on o.id = k.id;
    return coalesce(v_in_line, '{}');
end $$;

-- Writes the stubs of dead letters: called in the statement of the commit call, with its outcomes,
-- so that both are one transaction and one round trip. A row's stub has its id, so it stands where
-- the row stood, and a later epoch, so nobody who had the row can settle or extend it.
create function sagabus.hold_v1(
    p_outcomes smallint[],     -- null: every unit has won
    p_is_stale boolean,        -- nothing was written
    p_in_line boolean[],       -- as `lines_v1` said
    k_unit int[],
    k_row bigint[], k_epoch int[],   -- null: a broker brought it
    k_message uuid[], k_type text[], k_destination text[], k_key text[]
) returns void language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now bigint := sagabus.now_micros();
begin
    if p_is_stale then
        return;
    end if;
    insert into sagabus.outbox (id, message_id, message_type, destination, key, per_key, headers,
        body, available_at, epoch, created_at)
    overriding system value
    select k.id, k.message, k.type, k.destination, k.key, true, '{}', '', sagabus.never_micros(),
        k.epoch + 1, v_now
    from unnest(k_unit, k_row, k_epoch, k_message, k_type, k_destination, k_key, p_in_line)
        as k(unit, id, epoch, message, type, destination, key, in_line)
    where k.id is not null and k.in_line and (p_outcomes is null or p_outcomes[k.unit] = 0);
    insert into sagabus.outbox (message_id, message_type, destination, key, per_key, headers, body,
        available_at, epoch, created_at)
    select k.message, k.type, k.destination, k.key, true, '{}', '', sagabus.never_micros(), 1, v_now
    from unnest(k_unit, k_row, k_message, k_type, k_destination, k_key)
        as k(unit, id, message, type, destination, key)
    where k.id is null and (p_outcomes is null or p_outcomes[k.unit] = 0)
      and sagabus.stub_v1(substr(k.destination, 2), k.key, k.message) is null;
end $$;

-- Copies rows that the commit call is about to remove: called in its statement, before it. Returns
-- how many.
create function sagabus.keep_sent_v1(k_id bigint[], k_epoch int[], k_for bigint[]) returns int
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now bigint := sagabus.now_micros();
    v_count int;
begin
    insert into sagabus.sent (id, message_id, message_type, destination, key, per_key, headers, body,
        expires_at, sent_at, kept_until)
    select o.id, o.message_id, o.message_type, o.destination, o.key, o.per_key, o.headers, o.body,
        o.expires_at, v_now, v_now + k.kept_for
    from unnest(k_id, k_epoch, k_for) as k(id, epoch, kept_for)
    join sagabus.outbox o on o.id = k.id and o.epoch = k.epoch
    on conflict do nothing;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

update sagabus.store set schema_version = 3;
