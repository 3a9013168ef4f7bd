//! The accounts: what came, and what became of it.

use sagabus_core::StoreError;
use sagabus_core::admin::{Accounts, MISSING_MAX};

use super::super::clock::never;
use super::super::error::store_error;
use super::super::store::SqliteStore;
use crate::found;

/// One statement, so that all of it is of one moment. What came: inbox rows, and rows that units
/// wrote for endpoints. What became of it: history, the last dead letter, a row that is there.
const ACCOUNTS: &str = concat!(
    "with since as (
    select coalesce(max(s.through), 0) as at from sagabus_swept s
), site as (
    select e.id, e.name from sagabus_endpoint e
    where e.name not in (select value from json_each($1))
), came as materialized (
    select c.endpoint_id, c.message_id, max(c.message_type) as message_type,
        max(c.history_id) as history_id, max(c.at) as at
    from (
        select i.endpoint_id, i.message_id, null as message_type, 0 as history_id,
            i.accepted_at as at
        from sagabus_inbox i where i.accepted_at > (select s.at from since s)
        union all
        select e.id, unhex(replace(d.whole -> 'sent' -> (p.value ->> 0) ->> 0, '-', '')),
            d.whole -> 'sent' -> (p.value ->> 0) ->> 1, d.id, d.at
        from (
            select h.id, h.at, cast(h.detail as text) as whole from sagabus_history h
            where h.at > (select s.at from since s)
        ) d join json_each(d.whole, '$.placed') p
        join sagabus_endpoint e on e.name = p.value ->> 1
    ) c group by 1, 2
), handled as materialized (
    select h.endpoint_id, h.message_id, max(h.message_type) as message_type, max(h.id) as id,
        max(h.at) as at
    from sagabus_history h group by 1, 2
), dead as materialized (
    select e.id as endpoint_id, d.message_id, d.message_type, max(d.id) as id, d.at, d.status,
        d.reason
    from sagabus_dead_letter d join sagabus_endpoint e on e.name = d.endpoint
    group by 1, 2
), pending as materialized (
    select e.id as endpoint_id, o.message_id, max(o.message_type) as message_type
    from sagabus_outbox o join sagabus_endpoint e on o.destination = '@' || e.name
    where o.available_at < ",
    never!(),
    " group by 1, 2
), known as (
    select c.endpoint_id, c.message_id from came c
    union select h.endpoint_id, h.message_id from handled h
        where h.at > (select s.at from since s)
    union select d.endpoint_id, d.message_id from dead d
        where d.status = 'open' or d.at > (select s.at from since s)
    union select p.endpoint_id, p.message_id from pending p
), moved as materialized (
    select m.id from (
        select i.item_id as id from sagabus_operation o
        join sagabus_operation_item i on i.operation_id = o.id and i.item_id <= o.place
        join sagabus_dead_letter d on d.id = i.item_id and d.endpoint <> o.send_to
        where o.verb = 'redrive' and o.send_to is not null
        union
        select e.value ->> 'id' from sagabus_audit a join json_each(cast(a.detail as text)) e
        where a.action = 'edit_dead_letter' and e.value ->> 'sent_as' <> e.value ->> 'message_id'
    ) m
), taken as materialized (
    select substr(e.value ->> 'destination', 2) as endpoint,
        unhex(replace(e.value ->> 'message_id', '-', '')) as message_id,
        max(e.value ->> 'message_type') as message_type, max(a.action) as action
    from sagabus_audit a join json_each(cast(a.detail as text)) e
    where a.action in ('discard_rows', 'purge_rows', 'readdress_rows')
        and e.value ->> 'destination' like '@%'
    group by 1, 2
), account as materialized (
    select e.name, k.message_id,
        coalesce(p.message_type, d.message_type, h.message_type, c.message_type, t.message_type)
            as message_type,
        i.message_id is not null as is_accepted,
        case
            when p.message_id is not null then 'pending'
            when d.status = 'open' and d.reason = 'expired' then 'expired'
            when d.status = 'open' then 'dead'
            when h.id > coalesce(c.history_id, 0) and (d.id is null or h.at >= d.at) then 'handled'
            when d.status = 'discarded' then 'discarded'
            when d.id in (select m.id from moved m) then 'moved'
            when t.action in ('discard_rows', 'purge_rows') then 'discarded'
            when t.action = 'readdress_rows' then 'moved'
            else 'missing'
        end as state,
        coalesce(c.at, d.at, 0) as at
    from known k
    join site e on e.id = k.endpoint_id
    left join came c on c.endpoint_id = k.endpoint_id and c.message_id = k.message_id
    left join handled h on h.endpoint_id = k.endpoint_id and h.message_id = k.message_id
    left join dead d on d.endpoint_id = k.endpoint_id and d.message_id = k.message_id
    left join pending p on p.endpoint_id = k.endpoint_id and p.message_id = k.message_id
    left join taken t on t.endpoint = e.name and t.message_id = k.message_id
    left join sagabus_inbox i on i.endpoint_id = k.endpoint_id and i.message_id = k.message_id
)
select 0 as part, null as name, null as message_type, false as is_accepted, '' as state,
    0 as n, null as message_id, s.at from since s
union all
select 1, a.name, a.message_type, a.is_accepted, a.state, count(*), null, 0
from account a group by a.name, a.message_type, a.is_accepted, a.state
union all
select 2, m.* from (
    select a.name, a.message_type, a.is_accepted, a.state, 1, a.message_id, a.at
    from account a where a.state = 'missing' order by a.at, a.message_id limit $2
) m
order by part, name, message_type nulls first, at, message_id"
);

/// Balances what came against what became of it.
pub(super) async fn accounts(
    store: &SqliteStore,
    without: &[String],
) -> Result<Accounts, StoreError> {
    let without = serde_json::json!(without).to_string();
    let rows = sqlx::query(ACCOUNTS)
        .bind(without)
        .bind(MISSING_MAX)
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    found::accounts(&rows).map_err(store_error)
}
