-- What retention removed, and what that leaves to account for.

-- What sweeps removed for good: written in the transaction that removes it, so that the accounts
-- know from when on they are whole.
create table sagabus.swept (
    what    text   primary key,                  -- the table
    removed bigint not null,                     -- how many rows, ever
    through bigint not null                      -- the youngest of them was of this time
);

-- Nobody wrote down what was removed before: accounts begin now, where there is anything.
insert into sagabus.swept (what, removed, through)
select 'history', 0, sagabus.now_micros() where exists (select 1 from sagabus.inbox)
    or exists (select 1 from sagabus.history);

-- As before, and it says what it removed. Releases of before call it by this name, too.
create or replace function sagabus.sweep_history_v1(p_page int, p_kept bigint) returns bigint
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_before bigint := sagabus.now_micros() - p_kept;
    v_count bigint;
    v_through bigint;
begin
    with gone as (
        delete from sagabus.history h using (
            select o.id, o.at from sagabus.history o order by o.id limit p_page
        ) page where h.id = page.id and page.at <= v_before
        returning h.at
    )
    select count(*), max(g.at) into v_count, v_through from gone g;
    if v_count > 0 then
        insert into sagabus.swept as s (what, removed, through) values ('history', v_count, v_through)
        on conflict (what) do update set removed = s.removed + excluded.removed,
            through = greatest(s.through, excluded.through);
    end if;
    return v_count;
end $$;

-- Lists the dead letters that were redriven to another endpoint, or under another identity. It runs
-- as its owner: who may not read what the audit holds may know this.
create function sagabus.moved_v1() returns setof bigint
language sql stable security definer set search_path = pg_catalog
as $$
    select i.dead_letter_id from sagabus.operation o
    join sagabus.operation_item i on i.operation_id = o.id and i.dead_letter_id <= o.place
    join sagabus.dead_letter d on d.id = i.dead_letter_id and d.endpoint <> o.send_to
    where o.verb = 'redrive' and o.send_to is not null
    union
    select (e.entry ->> 'id')::bigint from sagabus.audit a
    cross join lateral json_array_elements(convert_from(a.detail, 'UTF8')::json) as e(entry)
    where a.action = 'edit_dead_letter' and e.entry ->> 'sent_as' <> e.entry ->> 'message_id'
$$;

-- The life of one message is looked up, however much history there is. Identities grow with time,
-- so that nearly every entry goes to the end.
create index history_message on sagabus.history (message_id);

update sagabus.store set schema_version = 20;
