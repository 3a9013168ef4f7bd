-- What operators change, and how they find what they look for.

-- One operator's change, written with the change in one transaction.
create table sagabus.audit (
    id     bigint generated always as identity primary key,
    at     bigint not null,
    who    text   not null,
    action text   not null,
    why    text   not null,
    detail bytea  not null                       -- JSON array: an object per row that changed
);

-- Groups are counted from this index alone, and lists of one status begin in it.
create index dead_letter_group
    on sagabus.dead_letter (status, endpoint, fingerprint, at, id);
create index dead_letter_status on sagabus.dead_letter (status, id);
create index dead_letter_key on sagabus.dead_letter (key) where key is not null;
create index dead_letter_message on sagabus.dead_letter (message_id);

-- Removes hosts that were not heard of for longer than history is kept.
create function sagabus.sweep_hosts_v1(p_page int, p_kept bigint) returns bigint
language plpgsql
as $$
declare
    v_before bigint := sagabus.now_micros() - p_kept;
    v_count bigint;
begin
    delete from sagabus.host h using (
        select o.id from sagabus.host o where o.heartbeat_at <= v_before limit p_page
        for update skip locked
    ) page where h.id = page.id;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- Removes an endpoint that nothing waits for, with what it takes.
create function sagabus.remove_endpoint_v1(p_who text, p_action text, p_why text, p_name text)
returns table (id bigint) language plpgsql
as $$
declare
    v_id int;
begin
    select e.id into v_id from sagabus.endpoint e where e.name = p_name
        and not exists (select 1 from sagabus.outbox o where o.destination = '@' || p_name)
        and not exists (select 1 from sagabus.dead_letter d
                        where d.status = 'open' and d.endpoint = p_name)
    for update;
    if not found then
        return;
    end if;
    delete from sagabus.subscription s where s.endpoint_id = v_id;
    delete from sagabus.endpoint e where e.id = v_id;
    update sagabus.store set routes_version = routes_version + 1;
    insert into sagabus.audit (at, who, action, why, detail)
    values (sagabus.now_micros(), p_who, p_action, p_why, convert_to(
        jsonb_build_array(jsonb_build_object('endpoint', p_name))::text, 'UTF8'));
    return query select v_id::bigint;
end $$;

update sagabus.store set schema_version = 8;
