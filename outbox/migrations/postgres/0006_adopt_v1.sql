-- Commands that nobody took are parked under `?` and their type. When an endpoint comes that owns
-- such a command, they are its messages. What is parked is found by an index of its own.
create index outbox_parked on sagabus.outbox (destination, id) where parked is not null;

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

update sagabus.store set schema_version = 6;
