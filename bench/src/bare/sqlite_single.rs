//! One message at a time on SQLite: as most services are written, and as well as it goes.

use std::sync::Arc;

use anyhow::{Result, ensure};
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::Mutex;

use super::sqlite::now;
use super::{Incoming, LATER, Sent, detail, statement};
use crate::services::Place;
use crate::source::Source;

/// The user's own table.
pub(crate) const SETUP: &str = "create table payment (message_id blob primary key, \
    account text not null, cents integer not null) strict;";

const INBOX: &str = "insert into sagabus_inbox (message_id, endpoint_id, accepted_at) \
    values (?, 1, ?) on conflict do nothing";
const OUTBOX: &str = "insert into sagabus_outbox (message_id, message_type, destination, headers, \
    body, available_at, due_at, created_at) values (?, ?, ?, ?, ?, ?, ?, ?)";
const HISTORY: &str = "insert into sagabus_history (at, endpoint_id, message_id, message_type, \
    correlation_id, detail) values (?, 1, ?, ?, ?, ?)";

/// Each message in a transaction of its own, statement by statement; the one connection that
/// writes goes round.
pub(crate) async fn one_by_one(place: Place, source: Arc<Source>, tasks: usize) -> Result<()> {
    let writer = Arc::new(Mutex::new(place.sqlite().await?));
    let mut running = Vec::new();
    for _ in 0..tasks {
        let (source, writer) = (Arc::clone(&source), Arc::clone(&writer));
        running.push(tokio::spawn(async move {
            while let Some((raw, ticket)) = source.next().await {
                let mut message = Incoming::decode(&raw, ticket)?;
                let sent = statement(&message)?;
                let mut connection = writer.lock().await;
                each_statement(&mut connection, &message, &sent).await?;
                drop(connection);
                if let Some(ticket) = message.ticket.take() {
                    ticket.ack();
                }
            }
            anyhow::Ok(())
        }));
    }
    for task in running {
        task.await??;
    }
    Ok(())
}

async fn each_statement(
    connection: &mut SqliteConnection,
    message: &Incoming,
    sent: &Sent,
) -> Result<()> {
    let now = now();
    let mut transaction = connection.begin_with("begin immediate").await?;
    let accepted = sqlx::query(INBOX)
        .bind(message.id)
        .bind(now)
        .execute(&mut *transaction)
        .await?;
    ensure!(accepted.rows_affected() == 1, "a message came twice");
    sqlx::query("insert into payment (message_id, account, cents) values (?, ?, ?)")
        .bind(message.id)
        .bind(&message.account)
        .bind(message.cents)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(OUTBOX)
        .bind(sent.id)
        .bind(sent.message_type)
        .bind(&sent.destination)
        .bind(&sent.headers)
        .bind(&sent.body)
        .bind(now + LATER)
        .bind(now + LATER)
        .bind(now)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(HISTORY)
        .bind(now)
        .bind(message.id)
        .bind(&message.message_type)
        .bind(message.correlation)
        .bind(detail(std::slice::from_ref(sent), None, None)?)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}

/// Each message in two calls: a read that knows a duplicate, one text that does all the rest.
pub(crate) async fn two_calls(place: Place, source: Arc<Source>, tasks: usize) -> Result<()> {
    let writer = Arc::new(Mutex::new(place.sqlite().await?));
    let text = format!("begin immediate; {INBOX}; {OUTBOX}; {HISTORY}; commit");
    let text: Arc<str> = text.into();
    let mut running = Vec::new();
    for _ in 0..tasks {
        let mut reader = place.sqlite().await?;
        let (source, writer) = (Arc::clone(&source), Arc::clone(&writer));
        let text = Arc::clone(&text);
        running.push(tokio::spawn(async move {
            while let Some((raw, ticket)) = source.next().await {
                let mut message = Incoming::decode(&raw, ticket)?;
                let sent = statement(&message)?;
                check_new(&mut reader, &message).await?;
                let mut connection = writer.lock().await;
                each_text(&mut connection, &text, &message, &sent).await?;
                drop(connection);
                if let Some(ticket) = message.ticket.take() {
                    ticket.ack();
                }
            }
            anyhow::Ok(())
        }));
    }
    for task in running {
        task.await??;
    }
    Ok(())
}

async fn check_new(reader: &mut SqliteConnection, message: &Incoming) -> Result<()> {
    const KNOWN: &str = "select exists (select 1 from sagabus_inbox \
        where message_id = ? and endpoint_id = 1)";
    let is_known: bool = sqlx::query_scalar(KNOWN)
        .bind(message.id)
        .fetch_one(reader)
        .await?;
    ensure!(!is_known, "a message came twice");
    Ok(())
}

async fn each_text(
    connection: &mut SqliteConnection,
    text: &str,
    message: &Incoming,
    sent: &Sent,
) -> Result<()> {
    let now = now();
    sqlx::query(sqlx::AssertSqlSafe(text.to_owned()))
        .bind(message.id)
        .bind(now)
        .bind(sent.id)
        .bind(sent.message_type)
        .bind(&sent.destination)
        .bind(&sent.headers)
        .bind(&sent.body)
        .bind(now + LATER)
        .bind(now + LATER)
        .bind(now)
        .bind(now)
        .bind(message.id)
        .bind(&message.message_type)
        .bind(message.correlation)
        .bind(detail(std::slice::from_ref(sent), None, None)?)
        .execute(connection)
        .await?;
    Ok(())
}
