//! One message at a time on PostgreSQL: as most services are written, and as well as it goes.

use std::sync::Arc;

use anyhow::{Result, ensure};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::sync::Mutex;

use super::{Incoming, LATER, Sent, detail, statement};
use crate::services::Place;
use crate::source::Source;

/// The user's own table, and the function of a programmer who counts round trips.
pub(crate) const SETUP: &str = "
create table payment (message_id uuid primary key, account text not null, cents bigint not null);
create function bare_one(
    m_id uuid, o_message uuid, o_type text, o_destination text, o_headers bytea, o_body bytea,
    o_after bigint, h_type text, h_correlation uuid, h_detail bytea
) returns boolean language plpgsql as $$
declare
    v_now bigint := (extract(epoch from clock_timestamp()) * 1000000)::bigint;
begin
    insert into sagabus.inbox (message_id, endpoint_id, accepted_at)
    values (m_id, 1, v_now) on conflict do nothing;
    if not found then return false; end if;
    insert into sagabus.outbox (message_id, message_type, destination, headers, body,
        available_at, due_at, created_at)
    values (o_message, o_type, o_destination, o_headers, o_body, v_now + o_after,
        v_now + o_after, v_now);
    insert into sagabus.history (at, endpoint_id, message_id, message_type, correlation_id, detail)
    values (v_now, 1, m_id, h_type, h_correlation, h_detail);
    return true;
end $$;
";

const NOW: &str = "(extract(epoch from clock_timestamp()) * 1000000)::bigint";

/// Each message in a transaction of its own, statement by statement, with so many connections.
pub(crate) async fn one_by_one(place: Place, source: Arc<Source>, tasks: usize) -> Result<()> {
    run(place, source, tasks, Way::OneByOne).await
}

/// Each message in two calls: a read that knows a duplicate, a function that does all the rest.
pub(crate) async fn two_calls(place: Place, source: Arc<Source>, tasks: usize) -> Result<()> {
    run(place, source, tasks, Way::TwoCalls).await
}

#[derive(Clone, Copy)]
enum Way {
    OneByOne,
    TwoCalls,
}

async fn run(place: Place, source: Arc<Source>, tasks: usize, way: Way) -> Result<()> {
    let statements = Arc::new(Statements::new());
    let first_error = Arc::new(Mutex::new(None));
    let mut running = Vec::new();
    for _ in 0..tasks {
        let mut connection = place.postgres().await?;
        let (source, statements) = (Arc::clone(&source), Arc::clone(&statements));
        let first_error = Arc::clone(&first_error);
        running.push(tokio::spawn(async move {
            while let Some((raw, ticket)) = source.next().await {
                let done = match Incoming::decode(&raw, ticket) {
                    Ok(message) => handle(&mut connection, message, &statements, way).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = done {
                    first_error.lock().await.get_or_insert(error);
                    return;
                }
            }
        }));
    }
    for task in running {
        task.await?;
    }
    first_error.lock().await.take().map_or(Ok(()), Err)
}

/// Texts that are put together once.
struct Statements {
    inbox: String,
    outbox: String,
    history: String,
}

impl Statements {
    fn new() -> Self {
        Self {
            inbox: format!(
                "insert into sagabus.inbox (message_id, endpoint_id, accepted_at) \
                 values ($1, 1, {NOW}) on conflict do nothing"
            ),
            outbox: format!(
                "insert into sagabus.outbox (message_id, message_type, destination, headers, \
                 body, available_at, due_at, created_at) \
                 values ($1, $2, $3, $4, $5, {NOW} + $6, {NOW} + $6, {NOW})"
            ),
            history: format!(
                "insert into sagabus.history (at, endpoint_id, message_id, message_type, \
                 correlation_id, detail) values ({NOW}, 1, $1, $2, $3, $4)"
            ),
        }
    }
}

async fn handle(
    connection: &mut PgConnection,
    mut message: Incoming,
    statements: &Statements,
    way: Way,
) -> Result<()> {
    let sent = statement(&message)?;
    match way {
        Way::OneByOne => each_statement(connection, &message, &sent, statements).await?,
        Way::TwoCalls => each_call(connection, &message, &sent).await?,
    }
    if let Some(ticket) = message.ticket.take() {
        ticket.ack();
    }
    Ok(())
}

async fn each_statement(
    connection: &mut PgConnection,
    message: &Incoming,
    sent: &Sent,
    statements: &Statements,
) -> Result<()> {
    let fixed = |text: &str| sqlx::AssertSqlSafe(text.to_owned());
    let mut transaction = connection.begin().await?;
    let accepted = sqlx::query(fixed(&statements.inbox))
        .bind(message.id)
        .execute(&mut *transaction)
        .await?;
    ensure!(accepted.rows_affected() == 1, "a message came twice");
    sqlx::query("insert into payment (message_id, account, cents) values ($1, $2, $3)")
        .bind(message.id)
        .bind(&message.account)
        .bind(message.cents)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(fixed(&statements.outbox))
        .bind(sent.id)
        .bind(sent.message_type)
        .bind(&sent.destination)
        .bind(&sent.headers)
        .bind(&sent.body)
        .bind(LATER)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(fixed(&statements.history))
        .bind(message.id)
        .bind(&message.message_type)
        .bind(message.correlation)
        .bind(detail(std::slice::from_ref(sent), None, None)?)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}

async fn each_call(connection: &mut PgConnection, message: &Incoming, sent: &Sent) -> Result<()> {
    const KNOWN: &str = "select exists (select 1 from sagabus.inbox \
        where message_id = $1 and endpoint_id = 1)";
    const WRITE: &str = "select bare_one($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let is_known: bool = sqlx::query_scalar(KNOWN)
        .bind(message.id)
        .fetch_one(&mut *connection)
        .await?;
    ensure!(!is_known, "a message came twice");
    let is_written: bool = sqlx::query_scalar(WRITE)
        .bind(message.id)
        .bind(sent.id)
        .bind(sent.message_type)
        .bind(&sent.destination)
        .bind(&sent.headers)
        .bind(&sent.body)
        .bind(LATER)
        .bind(&message.message_type)
        .bind(message.correlation)
        .bind(detail(std::slice::from_ref(sent), None, None)?)
        .fetch_one(connection)
        .await?;
    ensure!(is_written, "a message came twice");
    Ok(())
}
