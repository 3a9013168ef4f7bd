-- How far each host's clock is from the database's, for people who look for the cause of odd times.

alter table sagabus.host add column behind bigint;     -- microseconds; null: it never said

-- Extends what a host has in hand, and its heartbeat. A row that is being settled at this moment
-- is left alone: waiting for it here could make a circle.
create function sagabus.extend_v2(
    p_host uuid, p_ids bigint[], p_epochs int[], p_lease bigint, p_clock bigint,
    out rows bigint, out now bigint
) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
    now := sagabus.now_micros();
    rows := sagabus.extend_v1(p_host, p_ids, p_epochs, p_lease);
    update sagabus.host set behind = extend_v2.now - p_clock where id = p_host;
end $$;

update sagabus.store set schema_version = 18;
