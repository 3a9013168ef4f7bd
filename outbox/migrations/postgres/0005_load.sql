-- What is asked before a message is handled. The settings are explained in the commit call.

-- Answers the loader's questions, one row per question, in order.
create function sagabus.load_v1(
    q_endpoint int[], q_message uuid[], q_kind text[], q_key text[],
    q_destination text[], q_line text[]
) returns table (
    known boolean, version bigint, completed boolean, state text, schema_version int, data bytea,
    timers bytea, origin bytea, blocked boolean
) language plpgsql stable
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    -- Each a look-up of one row: `exists` may become a hash of the whole table, which a plan that
    -- was made while the table was empty goes on to build in every call.
    return query
    select coalesce(k.is_there, false),
        i.version, i.completed, i.state, i.schema_version, i.data, i.timers, i.origin,
        coalesce(l.is_there, false)
    from unnest(q_endpoint, q_message, q_kind, q_key, q_destination, q_line) with ordinality
        as q(endpoint, message, kind, key, destination, line, at)
    left join lateral (
        select true as is_there from sagabus.inbox b
        where b.message_id = q.message and b.endpoint_id = q.endpoint limit 1
    ) k on true
    left join sagabus.instance i on i.kind = q.kind and i.key = q.key
    left join lateral (
        select true as is_there from sagabus.outbox o
        where o.destination = q.destination and o.key = q.line and o.per_key
          and o.parked is null limit 1
    ) l on true
    order by q.at;
end $$;

-- Says of each message whether it was taken over at its endpoint, in order: the loader's question
-- where nothing else is asked.
create function sagabus.known_v1(p_endpoints int[], p_messages uuid[])
returns boolean[] language plpgsql stable
set enable_seqscan = off
as $$
declare
    v_known boolean[];
begin
    for v_n in 1 .. cardinality(p_messages) loop
        v_known[v_n] := exists (select from sagabus.inbox b
            where b.message_id = p_messages[v_n] and b.endpoint_id = p_endpoints[v_n]);
    end loop;
    return v_known;
end $$;

-- Finds the instances that have labels: for each that is found, its place in the question, from 1.
create function sagabus.find_labels_v1(p_kinds text[], p_names text[], p_values text[])
returns table (at bigint, key text) language plpgsql stable
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    return query
        select q.at, l.key
        from unnest(p_kinds, p_names, p_values) with ordinality q(kind, name, value, at)
        join sagabus.label l on l.kind = q.kind and l.name = q.name and l.value = q.value;
end
$$;

update sagabus.store set schema_version = 5;
