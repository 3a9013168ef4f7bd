-- How a host introduces itself, and what it learns.

-- Registers a host, its endpoints and subscriptions, and says whether the routes changed; or
-- registers nothing and names a command that another endpoint owns.
create function sagabus.attach_v1(
    p_host uuid, p_name text, p_definitions bytea,
    e_name text[], e_per_key boolean[],
    s_endpoint text[], s_type text[], s_kind text[],
    out has_changed boolean, out command text, out owner text, out claimant text
) language plpgsql
as $$
declare
    v_now bigint := sagabus.now_micros();
    v_endpoints int;
    v_subscriptions int;
begin
    -- One host at a time, so that two that start together do not wait for each other in a circle.
    perform pg_advisory_xact_lock(5567012019871102);
    select s.type, e.name, s.endpoint into command, owner, claimant
    from unnest(s_endpoint, s_type, s_kind) as s(endpoint, type, kind)
    join sagabus.subscription b on b.message_type = s.type and b.kind = 'command'
    join sagabus.endpoint e on e.id = b.endpoint_id and e.name <> s.endpoint
    where s.kind = 'command' limit 1;
    if found then
        has_changed := false;
        return;
    end if;
    insert into sagabus.host (id, name, definitions, started_at, heartbeat_at)
    values (p_host, p_name, p_definitions, v_now, v_now)
    on conflict (id) do update set
        name = excluded.name, definitions = excluded.definitions, heartbeat_at = v_now,
        stopped_at = null;
    -- Looked up first: an identity is not spent on an endpoint that is known.
    insert into sagabus.endpoint (name, per_key)
    select e.name, e.per_key from unnest(e_name, e_per_key) as e(name, per_key)
    where not exists (select 1 from sagabus.endpoint k where k.name = e.name);
    get diagnostics v_endpoints = row_count;
    update sagabus.endpoint k set per_key = e.per_key
    from unnest(e_name, e_per_key) as e(name, per_key)
    where k.name = e.name and k.per_key <> e.per_key;
    v_endpoints := v_endpoints + case when found then 1 else 0 end;
    insert into sagabus.subscription as k (message_type, endpoint_id, kind)
    select s.type, e.id, s.kind from unnest(s_endpoint, s_type, s_kind) as s(endpoint, type, kind)
    join sagabus.endpoint e on e.name = s.endpoint
    on conflict (message_type, endpoint_id) do update set kind = excluded.kind
    where k.kind <> excluded.kind;
    get diagnostics v_subscriptions = row_count;
    has_changed := v_endpoints > 0 or v_subscriptions > 0;
    if has_changed then
        update sagabus.store set routes_version = routes_version + 1;
    end if;
end $$;

-- Says whether every call that began before the routes changed has ended.
create function sagabus.has_settled_v1() returns boolean language sql volatile
return pg_try_advisory_xact_lock(5567012019871101);

update sagabus.store set schema_version = 7;
