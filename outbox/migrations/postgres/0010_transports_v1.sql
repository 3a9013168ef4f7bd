-- Rows of one transport among several.

-- Claims rows for one transport: every destination that begins with its prefix (`:archive:`), found
-- by stepping through the index, in an order that changes so that none is always last. The default
-- transport has no prefix: its rows are all but those of endpoints and of named transports.
create function sagabus.claim_transport_v2(
    c_prefix text, c_total int, c_each int, c_except text[], c_hot boolean, c_lease bigint
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
    v_destinations text[];
begin
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
    select array_agg(s.destination order by random()) into v_destinations
    from steps s
    where starts_with(s.destination, c_prefix)
      and (c_prefix <> '' or (s.destination not like '@%' and s.destination not like ':%'))
      and s.destination <> all (coalesce(c_except, '{}'));
    if v_destinations is not null then
        return query select * from sagabus.claim_v1(v_destinations,
            array_fill(c_each, array[cardinality(v_destinations)]), c_total, c_hot, c_lease);
    end if;
end $$;

update sagabus.store set schema_version = 10;
