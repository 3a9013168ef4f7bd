//! The accounts: what came, and what became of it.

use sagabus_core::StoreError;
use sagabus_core::admin::{Accounts, MISSING_MAX};

use super::super::error::store_error;
use super::super::store::PgStore;
use crate::found;

/// One statement, so that all of it is of one moment. What came: inbox rows, and rows that units
/// wrote for endpoints. What became of it: history, the last dead letter, a row that is there. All
/// that is said of a message at an endpoint is put together in one aggregate, because joins of what
/// each table says would each sort or hash as many rows again: half the time with a million. It is
/// grouped by message first, in whose order two indexes stand. Every function in it is parallel safe,
/// so that a server with workers to spare has them read the history.
const ACCOUNTS: &str = "with since as (
    select coalesce(max(s.through), 0) as at from sagabus.swept s
), site as (
    select e.id, e.name from sagabus.endpoint e where e.name <> all ($1::text[])
), fact (endpoint_id, message_id, is_accepted, came_at, came_by, came_type, handled_by, handled_at,
    handled_type, dead_id, is_pending, pending_type) as (
    select i.endpoint_id, i.message_id, true,
        case when i.accepted_at > (select s.at from since s) then i.accepted_at end,
        null::bigint, null::text, null::bigint, null::bigint, null::text, null::bigint, false,
        null::text
    from sagabus.inbox i
    union all
    select e.id, (sent.one ->> 0)::uuid, false, h.at, h.id, sent.one ->> 1, null, null, null, null,
        false, null
    from sagabus.history h
    cross join lateral json_to_record(convert_from(h.detail, 'UTF8')::json)
        as d(sent json, placed json)
    cross join lateral json_array_elements(d.placed) as p(placed)
    cross join lateral (select d.sent -> (p.placed ->> 0)::int as one offset 0) sent
    join sagabus.endpoint e on e.name = p.placed ->> 1
    where h.at > (select s.at from since s) and position('\"placed\"'::bytea in h.detail) > 0
    union all
    select h.endpoint_id, h.message_id, false, null, null, null, h.id, h.at, h.message_type, null,
        false, null
    from sagabus.history h
    union all
    select e.id, d.message_id, false, null, null, null, null, null, null, d.id, false, null
    from sagabus.dead_letter d join sagabus.endpoint e on e.name = d.endpoint
    union all
    select e.id, o.message_id, false, null, null, null, null, null, null, null, true,
        o.message_type
    from sagabus.outbox o join sagabus.endpoint e on '@' || e.name = o.destination
    where o.available_at < sagabus.never_micros()
), known as (
    select f.endpoint_id, f.message_id, bool_or(f.is_accepted) as is_accepted,
        max(f.came_at) as came_at, coalesce(max(f.came_by), 0) as came_by,
        max(f.came_type) as came_type, max(f.handled_by) as handled_by,
        max(f.handled_at) as handled_at, max(f.handled_type) as handled_type,
        max(f.dead_id) as dead_id, bool_or(f.is_pending) as is_pending,
        max(f.pending_type) as pending_type
    from fact f group by f.message_id, f.endpoint_id
), moved as materialized (
    select m.id from sagabus.moved_v1() as m(id)
), taken as materialized (
    select t.endpoint, t.message_id, t.message_type, t.action from sagabus.taken_away_v1() t
), account as materialized (
    select e.name, k.message_id,
        coalesce(k.pending_type, d.message_type, k.handled_type, k.came_type, t.message_type)
            collate \"C\" as message_type,
        k.is_accepted,
        case
            when k.is_pending then 'pending'
            when d.status = 'open' and d.reason = 'expired' then 'expired'
            when d.status = 'open' then 'dead'
            when k.handled_by > k.came_by and (d.id is null or k.handled_at >= d.at) then 'handled'
            when d.status = 'discarded' then 'discarded'
            when d.id in (select m.id from moved m) then 'moved'
            when t.action in ('discard_rows', 'purge_rows') then 'discarded'
            when t.action = 'readdress_rows' then 'moved'
            else 'missing'
        end as state,
        coalesce(k.came_at, d.at, 0) as at
    from known k
    join site e on e.id = k.endpoint_id
    left join sagabus.dead_letter d on d.id = k.dead_id
    left join taken t on t.endpoint = e.name and t.message_id = k.message_id
    where k.is_pending or k.came_at is not null or k.handled_at > (select s.at from since s)
        or d.status = 'open' or d.at > (select s.at from since s)
)
select 0 as part, null as name, null as message_type, false as is_accepted, '' as state,
    0::bigint as n, null::uuid as message_id, s.at from since s
union all
select 1, a.name, a.message_type, a.is_accepted, a.state, count(*), null, 0
from account a group by a.name, a.message_type, a.is_accepted, a.state
union all
select 2, m.* from (
    select a.name, a.message_type, a.is_accepted, a.state, 1, a.message_id, a.at
    from account a where a.state = 'missing' order by a.at, a.message_id limit $2::bigint
) m
order by part, name, message_type nulls first, at, message_id";

/// Balances what came against what became of it.
pub(super) async fn accounts(store: &PgStore, without: &[String]) -> Result<Accounts, StoreError> {
    let mut taken = store.take().await?;
    let call = sqlx::query(ACCOUNTS)
        .bind(without)
        .bind(i64::from(MISSING_MAX))
        .fetch_all(&mut *taken);
    let answer = store.slow_answer(call).await;
    let rows = taken.finish(answer, store_error)?;
    found::accounts(&rows).map_err(store_error)
}
