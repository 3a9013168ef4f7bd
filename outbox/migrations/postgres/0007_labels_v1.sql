-- Second names of instances, such as the number of a payment: each of one running instance.
create table sagabus.label (
    kind  text collate "C" not null,
    name  text collate "C" not null,
    value text collate "C" not null,
    key   text collate "C" not null,                 -- of the instance that has it
    primary key (kind, name, value)
);
create index label_owner on sagabus.label (kind, key);

-- A tombstone that is swept takes its labels along.
create function sagabus.label_gone_v1() returns trigger language plpgsql
set enable_seqscan = off set jit = off
as $$
begin
    delete from sagabus.label l using gone g where l.kind = g.kind and l.key = g.key;
    return null;
end
$$;
create trigger label_gone after delete on sagabus.instance
    referencing old table as gone
    for each statement execute function sagabus.label_gone_v1();

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

update sagabus.store set schema_version = 7;
