-- What brokers took, where a host declares that it is kept, so that a window of it can be sent again.

-- A message that a broker confirmed, as its row was.
create table sagabus.sent (
    id           bigint  primary key,                -- its row's: it is kept once, however often settled
    message_id   uuid    not null,
    message_type text    collate "C" not null,
    destination  text    collate "C" not null,
    key          text    collate "C",
    per_key      boolean not null,
    headers      bytea   not null,
    body         bytea   not null,
    expires_at   bigint,
    sent_at      bigint  not null,
    kept_until   bigint  not null
);
create index sent_old on sagabus.sent (kept_until);

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

-- Removes the first page of what was kept for long enough.
create function sagabus.sweep_sent_v1(p_page int) returns bigint language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_count bigint;
begin
    delete from sagabus.sent s using (
        select o.id from sagabus.sent o where o.kept_until < sagabus.now_micros()
        order by o.kept_until limit p_page for update skip locked
    ) page where s.id = page.id;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- What a host made of what it was asked to do, written into the entry of who asked: once, and nothing
-- else of an entry is ever written over.
alter table sagabus.audit add column outcome bytea;

-- Completes the audit entry by which a host was asked to move an instance. It runs as its owner: who
-- may call it may write over nothing.
create function sagabus.note_transition_v1(
    p_who text, p_kind text, p_key text, p_seen bigint, p_outcome bytea, p_version bigint
) returns setof bigint language sql security definer set search_path = pg_catalog
as $$
    update sagabus.audit a set outcome = p_outcome
    where a.outcome is null and a.id = (
        select e.id from sagabus.audit e
        cross join lateral (select convert_from(e.detail, 'UTF8')::json -> 0 as one) asked
        where e.action = 'transition_instance' and e.who = p_who and e.outcome is null
            and asked.one ->> 'kind' = p_kind and asked.one ->> 'key' = p_key
            and (asked.one ->> 'version')::bigint = p_seen
        order by e.id desc limit 1
    )
    returning p_version
$$;
revoke execute on function
    sagabus.note_transition_v1(text, text, text, bigint, bytea, bigint)
from public;

update sagabus.store set schema_version = 23;
