//! Groups on SQLite: one transaction per group, rows in statements of up to fifty.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, QueryBuilder, Row, Sqlite};
use tokio::sync::mpsc;

use super::own::{Groups, incoming};
use super::{Change, GROUP_MAX, Incoming, LEASE, Loaded, Sent, Towards, apply, deal, take_group};
use crate::services::Place;
use crate::source::Source;

/// Rows in one statement: longer ones were slower.
const ROWS_MAX: usize = 50;

const CLAIM: &str = "update sagabus_outbox set epoch = epoch + 1, starts = starts + 1, \
    available_at = $3 + $2 where id in (select id from sagabus_outbox \
    where destination = $1 and parked is null and available_at <= $3 \
    order by available_at limit $4) \
    returning id, epoch, message_id, message_type, headers, body";

/// Takes from the source and publishes what it writes.
pub(crate) async fn grouped(place: Place, source: Arc<Source>) -> Result<()> {
    let (sender, mut lane) = mpsc::channel(GROUP_MAX);
    let mut connection = place.sqlite().await?;
    let dealer = Arc::clone(&source);
    let dealing = tokio::spawn(async move { deal(&dealer, vec![sender]).await });
    let mut held_back = Vec::new();
    let mut published: Vec<i64> = Vec::new();
    loop {
        let mut group = take_group(&mut lane, &mut held_back).await;
        if group.is_empty() {
            break;
        }
        let done = std::mem::take(&mut published);
        (published, _) = handle(&mut connection, &group, &done, Towards::Broker).await?;
        for ticket in group.iter_mut().filter_map(|one| one.ticket.take()) {
            ticket.ack();
        }
        source.publish(published.len());
    }
    delete(&mut connection, &published).await?;
    dealing.await?
}

impl Groups for SqliteConnection {
    async fn claim(&mut self, destination: &'static str, wanted: i64) -> Result<Vec<Incoming>> {
        let claim = sqlx::query(CLAIM).bind(destination).bind(LEASE);
        let rows = claim.bind(now()).bind(wanted).fetch_all(self).await?;
        rows.iter().map(incoming).collect()
    }

    async fn handle(
        &mut self,
        group: &[Incoming],
        towards: Towards,
    ) -> Result<(Vec<i64>, Vec<Sent>)> {
        handle(self, group, &[], towards).await
    }
}

pub(super) fn now() -> i64 {
    sagabus_core::clock::now().as_micros()
}

async fn handle(
    connection: &mut SqliteConnection,
    group: &[Incoming],
    published: &[i64],
    towards: Towards,
) -> Result<(Vec<i64>, Vec<Sent>)> {
    let mut load = QueryBuilder::<Sqlite>::new(
        "select key, version, data from sagabus_instance where kind = 'account' and key in (",
    );
    let mut list = load.separated(", ");
    for one in group {
        list.push_bind(one.account.as_str());
    }
    load.push(")");
    let rows = load.build().fetch_all(&mut *connection).await?;
    let mut loaded: HashMap<String, Loaded> = HashMap::with_capacity(rows.len());
    for row in &rows {
        loaded.insert(row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?));
    }
    let mut changes = Vec::with_capacity(group.len());
    for message in group {
        let change = apply(message, loaded.get(&message.account), towards)?;
        changes.push((message, change));
    }
    run(connection, "begin immediate").await?;
    delete(connection, published).await?;
    let ids = write(connection, &changes, towards).await?;
    run(connection, "commit").await?;
    let sent = changes.into_iter().flat_map(|(_, change)| change.sent);
    Ok((ids, sent.collect()))
}

async fn run(connection: &mut SqliteConnection, sql: &'static str) -> Result<()> {
    sqlx::query(sql).execute(connection).await?;
    Ok(())
}

/// Deletes rows by id, in statements whose texts repeat.
async fn delete(connection: &mut SqliteConnection, ids: &[i64]) -> Result<u64> {
    let mut count = 0;
    for part in ids.chunks(ROWS_MAX) {
        let marks = vec!["?"; part.len()].join(", ");
        let text = format!("delete from sagabus_outbox where id in ({marks})");
        let mut query = sqlx::query(AssertSqlSafe(text));
        for id in part {
            query = query.bind(id);
        }
        count += query.execute(&mut *connection).await?.rows_affected();
    }
    Ok(count)
}

async fn write(
    connection: &mut SqliteConnection,
    changes: &[(&Incoming, Change)],
    towards: Towards,
) -> Result<Vec<i64>> {
    let now = now();
    let rows: Vec<i64> = changes
        .iter()
        .filter_map(|(message, _)| message.row.map(|row| row.0))
        .collect();
    ensure!(
        delete(connection, &rows).await? == u64::try_from(rows.len())?,
        "a row was lost"
    );
    if rows.is_empty() {
        insert_inbox(connection, changes, now).await?;
    }
    upsert_accounts(connection, changes, now).await?;
    insert_history(connection, changes, now).await?;
    insert_outgoing(connection, changes, now, towards).await
}

async fn insert_inbox(
    connection: &mut SqliteConnection,
    changes: &[(&Incoming, Change)],
    now: i64,
) -> Result<()> {
    for part in changes.chunks(ROWS_MAX) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "insert into sagabus_inbox (message_id, endpoint_id, accepted_at) ",
        );
        insert.push_values(part, |mut row, (message, _)| {
            row.push_bind(message.id).push_bind(1).push_bind(now);
        });
        insert.build().execute(&mut *connection).await?;
    }
    Ok(())
}

async fn upsert_accounts(
    connection: &mut SqliteConnection,
    changes: &[(&Incoming, Change)],
    now: i64,
) -> Result<()> {
    for part in changes.chunks(ROWS_MAX) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "insert into sagabus_instance (kind, key, version, completed, state, schema_version, \
            data, timers, origin, created_at, updated_at) ",
        );
        insert.push_values(part, |mut row, (_, change)| {
            row.push("'account'")
                .push_bind(change.account.as_str())
                .push_bind(change.version + 1)
                .push("0, 'open', 1")
                .push_bind(change.data.as_slice())
                .push("x'7b7d'")
                .push_bind(change.origin.as_slice())
                .push_bind(now)
                .push_bind(now);
        });
        insert.push(
            " on conflict (kind, key) do update set version = excluded.version, \
            data = excluded.data, updated_at = excluded.updated_at \
            where sagabus_instance.version = excluded.version - 1",
        );
        let written = insert.build().execute(&mut *connection).await?;
        ensure!(
            written.rows_affected() == u64::try_from(part.len())?,
            "an account moved meanwhile"
        );
    }
    Ok(())
}

async fn insert_history(
    connection: &mut SqliteConnection,
    changes: &[(&Incoming, Change)],
    now: i64,
) -> Result<()> {
    for part in changes.chunks(ROWS_MAX) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "insert into sagabus_history (at, endpoint_id, message_id, message_type, \
            correlation_id, kind, key, version, detail) ",
        );
        insert.push_values(part, |mut row, (message, change)| {
            row.push_bind(now)
                .push("1")
                .push_bind(message.id)
                .push_bind(message.message_type.as_str())
                .push_bind(message.correlation)
                .push("'account'")
                .push_bind(change.account.as_str())
                .push_bind(change.version + 1)
                .push_bind(change.detail.as_slice());
        });
        insert.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Inserts what is sent and returns its ids: SQLite gives them in order.
async fn insert_outgoing(
    connection: &mut SqliteConnection,
    changes: &[(&Incoming, Change)],
    now: i64,
    towards: Towards,
) -> Result<Vec<i64>> {
    let (lease, claimed) = match towards {
        Towards::Broker | Towards::Itself => (LEASE, 1),
        Towards::Endpoint => (0, 0),
    };
    let sent: Vec<_> = changes
        .iter()
        .flat_map(|(_, change)| &change.sent)
        .collect();
    let mut ids = Vec::with_capacity(sent.len());
    for part in sent.chunks(ROWS_MAX) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "insert into sagabus_outbox (message_id, message_type, destination, headers, body, \
            available_at, epoch, starts, created_at) ",
        );
        insert.push_values(part, |mut row, one| {
            row.push_bind(one.id)
                .push_bind(one.message_type)
                .push_bind(one.destination.as_str())
                .push_bind(one.headers.as_slice())
                .push_bind(one.body.as_slice())
                .push_bind(now + lease)
                .push_bind(claimed)
                .push_bind(claimed)
                .push_bind(now);
        });
        let written = insert.build().execute(&mut *connection).await?;
        let last = written.last_insert_rowid();
        ids.extend(last - i64::try_from(part.len())? + 1..=last);
    }
    Ok(ids)
}
