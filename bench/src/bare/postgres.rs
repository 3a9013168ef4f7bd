//! Groups on PostgreSQL: read the accounts of a group, then write the group by one call.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::own::{Groups, incoming};
use super::{Change, GROUP_MAX, Incoming, LEASE, Loaded, Sent, Towards, apply, deal, take_group};
use crate::services::Place;
use crate::source::Source;

/// The function that a programmer who has measured puts into the database: the happy path only,
/// all else is an error.
pub(crate) const SETUP: &str = "
create function bare_commit(
    d_id bigint[], m_id uuid[], r_id bigint[], r_epoch int[],
    i_key text[], i_version bigint[], i_data bytea[], i_origin bytea[], i_creates bigint,
    o_message uuid[], o_type text[], o_destination text[], o_headers bytea[], o_body bytea[],
    o_lease bigint,
    h_message uuid[], h_type text[], h_correlation uuid[], h_key text[], h_version bigint[],
    h_detail bytea[]
) returns bigint[] language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
declare
    v_now bigint := (extract(epoch from clock_timestamp()) * 1000000)::bigint;
    v_count bigint;
    v_born bigint;
    v_ids bigint[];
begin
    if cardinality(d_id) > 0 then
        delete from sagabus.outbox o using unnest(d_id) as d(id) where o.id = d.id;
    end if;
    if cardinality(m_id) > 0 then
        insert into sagabus.inbox (message_id, endpoint_id, accepted_at)
        select m.id, 1, v_now from unnest(m_id) as m(id) on conflict do nothing;
        get diagnostics v_count = row_count;
        if v_count <> cardinality(m_id) then raise exception 'a message came twice'; end if;
    end if;
    if cardinality(r_id) > 0 then
        delete from sagabus.outbox o using unnest(r_id, r_epoch) as r(id, epoch)
        where o.id = r.id and o.epoch = r.epoch;
        get diagnostics v_count = row_count;
        if v_count <> cardinality(r_id) then raise exception 'a row was lost'; end if;
    end if;
    with moved as (
        insert into sagabus.instance as t (kind, key, version, completed, state, schema_version,
            data, timers, origin, created_at, updated_at)
        select 'account', i.key, i.version + 1, false, 'open', 1, i.data, '{}', i.origin, v_now,
            v_now
        from unnest(i_key, i_version, i_data, i_origin) as i(key, version, data, origin)
        on conflict (kind, key) do update set
            version = excluded.version, data = excluded.data, updated_at = excluded.updated_at
        where t.version = excluded.version - 1
        returning t.xmax = 0 as born
    )
    select count(*), count(*) filter (where m.born) into v_count, v_born from moved m;
    if v_count <> cardinality(i_key) or v_born <> i_creates then
        raise exception 'an account moved meanwhile';
    end if;
    with written as (
        insert into sagabus.outbox (message_id, message_type, destination, headers, body,
            available_at, epoch, starts, created_at)
        select o.message, o.type, o.destination, o.headers, o.body, v_now + o_lease,
            (o_lease > 0)::int, (o_lease > 0)::int, v_now
        from unnest(o_message, o_type, o_destination, o_headers, o_body)
            as o(message, type, destination, headers, body)
        returning id
    )
    select array_agg(w.id) into v_ids from written w;
    insert into sagabus.history (at, endpoint_id, message_id, message_type, correlation_id,
        kind, key, version, detail)
    select v_now, 1, h.message, h.type, h.correlation, 'account', h.key, h.version, h.detail
    from unnest(h_message, h_type, h_correlation, h_key, h_version, h_detail)
        as h(message, type, correlation, key, version, detail);
    return v_ids;
end $$;
";

const LOAD: &str =
    "select key, version, data from sagabus.instance where kind = 'account' and key = any($1)";

const COMMIT: &str = "select bare_commit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, \
    $14, $15, $16, $17, $18, $19, $20, $21)";

pub(super) const DELETE: &str = "delete from sagabus.outbox where id = any($1)";

const CLAIM: &str = "update sagabus.outbox o set epoch = o.epoch + 1, starts = o.starts + 1, \
    available_at = (extract(epoch from clock_timestamp()) * 1000000)::bigint + $2 \
    where o.id = any(array(select c.id from sagabus.outbox c where c.destination = $1 \
        and c.parked is null \
        and c.available_at <= (extract(epoch from clock_timestamp()) * 1000000)::bigint \
        order by c.available_at limit $3 for no key update skip locked)) \
    returning o.id, o.epoch, o.message_id, o.message_type, o.headers, o.body";

/// Takes from the source and publishes what it writes, with `lanes` connections.
pub(crate) async fn grouped(place: Place, source: Arc<Source>, lanes: usize) -> Result<()> {
    let mut senders = Vec::new();
    let mut tasks = Vec::new();
    for _ in 0..lanes {
        let (sender, lane) = mpsc::channel(GROUP_MAX);
        senders.push(sender);
        let connection = place.postgres().await?;
        tasks.push(tokio::spawn(run_lane(
            connection,
            lane,
            Arc::clone(&source),
        )));
    }
    deal(&source, senders).await?;
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn run_lane(
    mut connection: PgConnection,
    mut lane: mpsc::Receiver<Incoming>,
    source: Arc<Source>,
) -> Result<()> {
    let mut held_back = Vec::new();
    let mut published: Vec<i64> = Vec::new();
    loop {
        let mut group = take_group(&mut lane, &mut held_back).await;
        if group.is_empty() {
            break;
        }
        let done = std::mem::take(&mut published);
        (published, _) = handle(&mut connection, &group, done, Towards::Broker).await?;
        for ticket in group.iter_mut().filter_map(|one| one.ticket.take()) {
            ticket.ack();
        }
        source.publish(published.len());
    }
    sqlx::query(DELETE)
        .bind(&published)
        .execute(&mut connection)
        .await?;
    Ok(())
}

impl Groups for PgConnection {
    async fn claim(&mut self, destination: &'static str, wanted: i64) -> Result<Vec<Incoming>> {
        let claim = sqlx::query(CLAIM)
            .bind(destination)
            .bind(LEASE)
            .bind(wanted);
        let rows = claim.fetch_all(self).await?;
        rows.iter().map(incoming).collect()
    }

    async fn handle(
        &mut self,
        group: &[Incoming],
        towards: Towards,
    ) -> Result<(Vec<i64>, Vec<Sent>)> {
        handle(self, group, Vec::new(), towards).await
    }
}

/// Reads, applies and writes a group. Returns what it sends, and the ids of its rows.
pub(super) async fn handle(
    connection: &mut PgConnection,
    group: &[Incoming],
    published: Vec<i64>,
    towards: Towards,
) -> Result<(Vec<i64>, Vec<Sent>)> {
    let keys: Vec<&str> = group.iter().map(|one| one.account.as_str()).collect();
    let rows = sqlx::query(LOAD)
        .bind(keys)
        .fetch_all(&mut *connection)
        .await?;
    let mut loaded: HashMap<String, Loaded> = HashMap::with_capacity(rows.len());
    for row in &rows {
        loaded.insert(row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?));
    }
    let mut changes = Vec::with_capacity(group.len());
    for message in group {
        let change = apply(message, loaded.get(&message.account), towards)?;
        changes.push((message, change));
    }
    commit(connection, changes, published, towards).await
}

async fn commit(
    connection: &mut PgConnection,
    mut changes: Vec<(&Incoming, Change)>,
    published: Vec<i64>,
    towards: Towards,
) -> Result<(Vec<i64>, Vec<Sent>)> {
    changes.sort_unstable_by(|(_, a), (_, b)| a.account.cmp(&b.account));
    let mut ids: Vec<Uuid> = Vec::new();
    let mut rows: Vec<(i64, i32)> = Vec::new();
    for (message, _) in &changes {
        match message.row {
            Some(row) => rows.push(row),
            None => ids.push(message.id),
        }
    }
    ids.sort_unstable();
    rows.sort_unstable();
    let each = || changes.iter().map(|(_, change)| change);
    let messages = || changes.iter().map(|(message, _)| *message);
    let sent = || each().flat_map(|change| &change.sent);
    let creates = each().filter(|change| change.version == 0).count();
    let lease = if towards == Towards::Endpoint {
        0
    } else {
        LEASE
    };
    let query = sqlx::query_scalar(COMMIT)
        .bind(published)
        .bind(ids)
        .bind(rows.iter().map(|row| row.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.1).collect::<Vec<_>>())
        .bind(each().map(|one| one.account.as_str()).collect::<Vec<_>>())
        .bind(each().map(|one| one.version).collect::<Vec<_>>())
        .bind(each().map(|one| one.data.as_slice()).collect::<Vec<_>>())
        .bind(each().map(|one| one.origin.as_slice()).collect::<Vec<_>>())
        .bind(i64::try_from(creates)?)
        .bind(sent().map(|one| one.id).collect::<Vec<_>>())
        .bind(sent().map(|one| one.message_type).collect::<Vec<_>>())
        .bind(
            sent()
                .map(|one| one.destination.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(sent().map(|one| one.headers.as_slice()).collect::<Vec<_>>())
        .bind(sent().map(|one| one.body.as_slice()).collect::<Vec<_>>())
        .bind(lease)
        .bind(messages().map(|one| one.id).collect::<Vec<_>>())
        .bind(
            messages()
                .map(|one| one.message_type.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(messages().map(|one| one.correlation).collect::<Vec<_>>())
        .bind(each().map(|one| one.account.as_str()).collect::<Vec<_>>())
        .bind(each().map(|one| one.version + 1).collect::<Vec<_>>())
        .bind(each().map(|one| one.detail.as_slice()).collect::<Vec<_>>());
    let written: Option<Vec<i64>> = query.fetch_one(connection).await?;
    let written = written.unwrap_or_default();
    ensure!(written.len() == sent().count(), "a message was not written");
    let sent = changes.into_iter().flat_map(|(_, change)| change.sent);
    Ok((written, sent.collect()))
}
