-- Bulk changes that outlive the process that drives them.

create table sagabus.operation (
    id          bigint generated always as identity primary key,
    state       text   not null check (state in ('running', 'paused', 'done', 'cancelled')),
    verb        text   not null check (verb in ('redrive', 'discard', 'restore')),
    send_to     text   collate "C",              -- redriven to this endpoint; null: each to its own
    rate        bigint,                          -- in a second at most; null: as fast as can be
    canary      bigint not null,                 -- how many go first and must be handled
    failures_percent_max bigint,                 -- it pauses above; null: only the canary counts
    who         text   not null,
    why         text   not null,
    selection   bytea  not null,                 -- JSON: what was asked for, for people
    endpoints   text[] collate "C" not null,     -- that gave up what was found
    last_id     bigint not null,                 -- the largest dead letter that was found
    total       bigint not null,                 -- how many were found
    taken       bigint not null default 0,       -- how many had their turn
    changed     bigint not null default 0,       -- how many of them were changed
    place       bigint not null default 0,       -- the last dead letter that had its turn
    note        text,                            -- why it is paused
    driver      text,                            -- who drives it, or did so last
    lease_until bigint,                          -- the driver's, alone
    epoch       int    not null default 0,       -- raised by who takes the wheel
    created_at  bigint not null,
    updated_at  bigint not null
);

-- What an operation is for: found once, when it began.
create table sagabus.operation_item (
    operation_id   bigint not null,
    dead_letter_id bigint not null,
    primary key (operation_id, dead_letter_id)
);

alter table sagabus.audit add column operation_id bigint;

-- Deals with dead letters that are open, in the order of their ids: redriven, each is a row of its
-- endpoint again, in the place that its stub held, else the last; discarded, or redriven to another
-- endpoint, it makes way.
create function sagabus.close_dead_letters_v2(
    p_who text, p_action text, p_why text, p_ids bigint[], p_status text, p_to text,
    p_operation bigint
) returns table (id bigint) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_now bigint := sagabus.now_micros();
    v_dead record;
    v_to text;
    v_stub bigint;
    v_done bigint[] := '{}';
    v_destinations text[] := '{}';
    v_keys text[] := '{}';
begin
    for v_dead in
        select d.* from sagabus.dead_letter d where d.id = any (p_ids) and d.status = 'open'
        order by d.id for update
    loop
        update sagabus.dead_letter d set status = p_status where d.id = v_dead.id;
        v_to := coalesce(p_to, v_dead.endpoint);
        v_stub := case when v_dead.key is not null
            then sagabus.stub_v1(v_dead.endpoint, v_dead.key, v_dead.message_id) end;
        if v_stub is not null and p_status = 'redriven' and v_to = v_dead.endpoint then
            update sagabus.outbox o set
                message_type = v_dead.message_type, headers = v_dead.headers, body = v_dead.body,
                available_at = v_now, created_at = v_now
            where o.id = v_stub;
        else
            if v_stub is not null then
                delete from sagabus.outbox o where o.id = v_stub;
                v_destinations := v_destinations || ('@' || v_dead.endpoint);
                v_keys := v_keys || v_dead.key;
            end if;
            if p_status = 'redriven' then
                insert into sagabus.outbox (message_id, message_type, destination, key, per_key,
                    headers, body, available_at, created_at)
                select v_dead.message_id, v_dead.message_type, '@' || v_to, v_dead.key,
                    v_dead.key is not null and coalesce((
                        select e.per_key from sagabus.endpoint e where e.name = v_to
                    ), false), v_dead.headers, v_dead.body, v_now, v_now;
            end if;
        end if;
        v_done := v_done || v_dead.id;
    end loop;
    if v_done = '{}' then
        return;
    end if;
    perform sagabus.pull_v1(v_destinations, v_keys);
    insert into sagabus.audit (at, who, action, why, operation_id, detail)
    select v_now, p_who, p_action, p_why, p_operation, convert_to(jsonb_agg(jsonb_build_object(
        'id', d.id, 'message_id', d.message_id, 'message_type', d.message_type,
        'endpoint', d.endpoint) order by d.id)::text, 'UTF8')
    from sagabus.dead_letter d where d.id = any (v_done);
    return query select unnest(v_done);
end $$;

-- Opens discarded dead letters again; of two that ask for one place, the later stays as it is.
create function sagabus.restore_dead_letters_v1(
    p_who text, p_action text, p_why text, p_ids bigint[], p_operation bigint
) returns table (id bigint) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_done bigint[];
begin
    with done as (
        update sagabus.dead_letter d set status = 'open'
        where d.id = any (p_ids) and d.status = 'discarded' and not exists (
            select 1 from sagabus.dead_letter o where o.message_id = d.message_id
            and o.endpoint = d.endpoint
            and (o.status = 'open'
                or o.id < d.id and o.status = 'discarded' and o.id = any (p_ids)))
        returning d.id
    )
    select array_agg(done.id order by done.id) into v_done from done;
    insert into sagabus.audit (at, who, action, why, operation_id, detail)
    select sagabus.now_micros(), p_who, p_action, p_why, p_operation,
        convert_to(jsonb_agg(jsonb_build_object(
            'id', d.id, 'message_id', d.message_id, 'message_type', d.message_type,
            'endpoint', d.endpoint) order by d.id)::text, 'UTF8')
    from sagabus.dead_letter d where d.id = any (v_done) having count(*) > 0;
    return query select unnest(v_done);
end $$;

-- Takes the next dead letters of an operation and says how far it is: one transaction, so that
-- whoever is killed leaves a step whole or not made.
create function sagabus.step_operation_v1(
    p_id bigint, p_epoch int, p_count int, p_lease bigint
) returns setof sagabus.operation language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now bigint := sagabus.now_micros();
    v_operation sagabus.operation;
    v_ids bigint[];
    v_changed bigint;
begin
    select * into v_operation from sagabus.operation o
    where o.id = p_id and o.epoch = p_epoch and o.state = 'running' for update;
    if not found then
        return;
    end if;
    select coalesce(array_agg(next.id order by next.id), '{}') into v_ids from (
        select i.dead_letter_id as id from sagabus.operation_item i
        where i.operation_id = p_id and i.dead_letter_id > v_operation.place
        order by i.dead_letter_id limit p_count
    ) next;
    if v_operation.verb = 'restore' then
        select count(*) into v_changed from sagabus.restore_dead_letters_v1(
            v_operation.who, 'restore_dead_letters', v_operation.why, v_ids, p_id);
    else
        select count(*) into v_changed from sagabus.close_dead_letters_v2(
            v_operation.who, v_operation.verb || '_dead_letters', v_operation.why, v_ids,
            case v_operation.verb when 'redrive' then 'redriven' else 'discarded' end,
            v_operation.send_to, p_id);
    end if;
    return query update sagabus.operation o set
        taken = o.taken + cardinality(v_ids), changed = o.changed + v_changed,
        place = coalesce(v_ids[cardinality(v_ids)], o.place),
        state = case when o.taken + cardinality(v_ids) = o.total then 'done' else o.state end,
        lease_until = case when o.taken + cardinality(v_ids) < o.total then v_now + p_lease end,
        updated_at = v_now
    where o.id = p_id returning o.*;
end $$;

update sagabus.store set schema_version = 16;
