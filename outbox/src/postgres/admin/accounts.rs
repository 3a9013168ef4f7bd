//! The accounts: what came, and what became of it.

use sagabus_core::StoreError;
use sagabus_core::admin::{Accounts, MISSING_MAX};

use super::super::error::store_error;
use super::super::store::PgStore;
use crate::found;

/// One statement, so that all of it is of one moment. What came: inbox rows, and rows that units
/// wrote for endpoints. What became of it: history, the last dead letter, a row that is there.
const ACCOUNTS: &str = "with since as (
    select coalesce(max(s.through), 0) as at from sagabus.swept s
), site as (
    select e.id, e.name from sagabus.endpoint e where e.name <> all ($1::text[])
), came as materialized (
    select c.endpoint_id, c.message_id, max(c.message_type) as message_type,
        max(c.history_id) as history_id, max(c.at) as at
    from (
        select i.endpoint_id, i.message_id, null as message_type, 0 as history_id,
            i.accepted_at as at
        from sagabus.inbox i where i.accepted_at > (select s.at from since s)
        union all
        select e.id, (sent.one ->> 0)::uuid, sent.one ->> 1, h.id, h.at
        from sagabus.history h
        cross join lateral (select convert_from(h.detail, 'UTF8')::json as whole) d
        cross join lateral json_array_elements(d.whole -> 'placed') as p(placed)
        cross join lateral (select d.whole -> 'sent' -> (p.placed ->> 0)::int as one) sent
        join sagabus.endpoint e on e.name = p.placed ->> 1
        where h.at > (select s.at from since s) and position('\"placed\"'::bytea in h.detail) > 0
    ) c group by 1, 2
), handled as materialized (
    select h.endpoint_id, h.message_id, max(h.message_type) as message_type, max(h.id) as id,
        max(h.at) as at
    from sagabus.history h group by 1, 2
), dead as materialized (
    select distinct on (e.id, d.message_id) e.id as endpoint_id, d.message_id, d.message_type,
        d.id, d.at, d.status, d.reason
    from sagabus.dead_letter d join sagabus.endpoint e on e.name = d.endpoint
    order by e.id, d.message_id, d.id desc
), pending as materialized (
    select e.id as endpoint_id, o.message_id, max(o.message_type) as message_type
    from sagabus.outbox o join sagabus.endpoint e on '@' || e.name = o.destination
    where o.available_at < sagabus.never_micros() group by 1, 2
), known as (
    select c.endpoint_id, c.message_id from came c
    union select h.endpoint_id, h.message_id from handled h
        where h.at > (select s.at from since s)
    union select d.endpoint_id, d.message_id from dead d
        where d.status = 'open' or d.at > (select s.at from since s)
    union select p.endpoint_id, p.message_id from pending p
), moved as materialized (
    select m.id from sagabus.moved_v1() as m(id)
), account as materialized (
    select e.name, k.message_id,
        coalesce(p.message_type, d.message_type, h.message_type, c.message_type)
            collate \"C\" as message_type,
        i.message_id is not null as is_accepted,
        case
            when p.message_id is not null then 'pending'
            when d.status = 'open' and d.reason = 'expired' then 'expired'
            when d.status = 'open' then 'dead'
            when h.id > coalesce(c.history_id, 0) and (d.id is null or h.at >= d.at) then 'handled'
            when d.status = 'discarded' then 'discarded'
            when d.id in (select m.id from moved m) then 'moved'
            else 'missing'
        end as state,
        coalesce(c.at, d.at, 0) as at
    from known k
    join site e on e.id = k.endpoint_id
    left join came c on c.endpoint_id = k.endpoint_id and c.message_id = k.message_id
    left join handled h on h.endpoint_id = k.endpoint_id and h.message_id = k.message_id
    left join dead d on d.endpoint_id = k.endpoint_id and d.message_id = k.message_id
    left join pending p on p.endpoint_id = k.endpoint_id and p.message_id = k.message_id
    left join sagabus.inbox i on i.endpoint_id = k.endpoint_id and i.message_id = k.message_id
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
    let answer = store.answer(call).await;
    let rows = taken.finish(answer, store_error)?;
    found::accounts(&rows).map_err(store_error)
}
