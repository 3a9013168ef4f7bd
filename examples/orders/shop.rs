//! The endpoint `orders`, the shop's own tables, and how an order is placed.
//!
//! The tables are what any shop would have. None has a unique constraint beyond the orders'
//! numbers: that nothing happens twice is the bus's promise, and `ledger.rs` checks it.

use std::path::Path;

use anyhow::{Context, Result as AnyResult};
use sagabus::prelude::*;
use sagabus::{BusTransaction, EndpointBuilder};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{ConnectOptions, Connection, Row};

use crate::console::{Console, Fact};
use crate::gateway::Card;
use crate::machine::order_machine;
use crate::messages::{OrderCancelled, OrderFinished, PaymentOverdue, PlaceOrder};

const TABLES: &str = "
    create table if not exists orders (
        id    integer primary key,
        cents integer not null,
        card  text    not null
    ) strict;
    create table if not exists payments (
        order_id integer not null,
        cents    integer not null,   -- below zero: given back
        receipt  text    not null
    ) strict;
    create table if not exists shipments (order_id integer not null) strict;
    create table if not exists ends (
        order_id integer not null,
        reason   text                -- why it was cancelled; null: finished
    ) strict;
    create index if not exists ends_order on ends (order_id);
";

/// Orders that one transaction places: few enough to hold the file for some milliseconds only.
const PLACED_TOGETHER_MAX: usize = 50;

/// Makes the tables where they are missing.
///
/// # Errors
/// When the file cannot be written.
pub(crate) async fn create_tables(file: &Path) -> AnyResult<()> {
    let mut connection = SqliteConnectOptions::new().filename(file).connect().await?;
    sqlx::raw_sql(TABLES)
        .execute(&mut connection)
        .await
        .context("cannot create the tables")?;
    connection.close().await?;
    Ok(())
}

/// Puts machine and handlers on their endpoint.
pub(crate) fn endpoint(endpoint: EndpointBuilder) -> EndpointBuilder {
    endpoint
        .machine(order_machine())
        .handle(tell_customer)
        .handle(note_finished)
        .handle(note_cancelled)
}

/// Here a real shop would write a mail.
async fn tell_customer(event: PaymentOverdue, console: State<Console>) {
    console.say(Fact::Overdue, event.order_id, || {
        "no payment in time; it is cancelled as soon as the money's whereabouts are known"
            .to_owned()
    });
}

async fn note_finished(
    event: OrderFinished,
    mut tx: Tx<Sqlite>,
    console: State<Console>,
) -> Result {
    note_end(&mut tx, event.order_id, None).await?;
    console.say(Fact::Finished, event.order_id, || "finished".to_owned());
    Ok(())
}

async fn note_cancelled(
    event: OrderCancelled,
    mut tx: Tx<Sqlite>,
    console: State<Console>,
) -> Result {
    note_end(&mut tx, event.order_id, Some(&event.reason)).await?;
    console.say(Fact::Cancelled, event.order_id, || {
        format!("cancelled: {}", event.reason)
    });
    Ok(())
}

async fn note_end(tx: &mut Tx<Sqlite>, order_id: i64, reason: Option<&str>) -> Result {
    sqlx::query("insert into ends (order_id, reason) values (?, ?)")
        .bind(order_id)
        .bind(reason)
        .execute(tx.conn().await?)
        .await?;
    Ok(())
}

/// Places orders and looks at them.
#[derive(Clone)]
pub(crate) struct Shop {
    store: SqliteStore,
    bus: Bus,
    console: Console,
    /// Cards of a hundred that are declined; a fifth as many belong to a slow bank.
    fail_rate: u8,
}

impl Shop {
    /// Makes a shop over a running host.
    pub(crate) fn new(store: SqliteStore, bus: Bus, console: Console, fail_rate: u8) -> Self {
        Self {
            store,
            bus,
            console,
            fail_rate,
        }
    }

    /// Places this many orders under the next numbers.
    ///
    /// # Errors
    /// When the database refuses; what was placed before stays.
    pub(crate) async fn place_next(&self, count: usize) -> AnyResult<()> {
        let mut left = count;
        while left > 0 {
            let together = left.min(PLACED_TOGETHER_MAX);
            let mut tx = self.store.begin(&self.bus).await?;
            let last = "select coalesce(max(id), 0) from orders";
            let last: i64 = sqlx::query_scalar(last).fetch_one(tx.conn().await?).await?;
            self.place(tx, (last + 1..).take(together)).await?;
            left -= together;
        }
        Ok(())
    }

    /// Places up to `count` of the orders `1..=total` that are missing. Returns how many were.
    ///
    /// An order's number is its identity: whoever died while placing looks which numbers are
    /// there, and places the others.
    ///
    /// # Errors
    /// As [`place_next`](Self::place_next).
    pub(crate) async fn place_missing(&self, total: i64, count: usize) -> AnyResult<usize> {
        let mut tx = self.store.begin(&self.bus).await?;
        let there = "select id from orders where id between 1 and ? order by id";
        let there: Vec<i64> = sqlx::query_scalar(there)
            .bind(total)
            .fetch_all(tx.conn().await?)
            .await?;
        let is_missing = |id: &i64| there.binary_search(id).is_err();
        let missing = (1..=total)
            .filter(is_missing)
            .take(count.min(PLACED_TOGETHER_MAX));
        let missing: Vec<i64> = missing.collect();
        let count = missing.len();
        self.place(tx, missing.into_iter()).await?;
        Ok(count)
    }

    /// Writes orders and sends their commands: one commit for both, or neither.
    async fn place(
        &self,
        mut tx: BusTransaction<Sqlite>,
        ids: impl Iterator<Item = i64>,
    ) -> AnyResult<()> {
        let mut placed = Vec::new();
        for order_id in ids {
            let (cents, card) = (price(order_id), card(order_id, self.fail_rate));
            sqlx::query("insert into orders (id, cents, card) values (?, ?, ?)")
                .bind(order_id)
                .bind(cents)
                .bind(card)
                .execute(tx.conn().await?)
                .await?;
            tx.send(PlaceOrder {
                order_id,
                cents,
                card: card.to_owned(),
            })?;
            placed.push((order_id, cents));
        }
        tx.commit().await?;
        for (order_id, cents) in placed {
            self.console.say(Fact::Placed, order_id, || {
                format!("placed, {}", euros(cents))
            });
        }
        Ok(())
    }

    /// Returns how many orders there are and how many of them are under way.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(crate) async fn counts(&self) -> AnyResult<(i64, i64)> {
        counts(self.store.reader()).await
    }

    /// Returns the connections that read.
    pub(crate) fn reader(&self) -> &SqlitePool {
        self.store.reader()
    }
}

/// Returns how many orders there are and how many of them are under way.
///
/// # Errors
/// When the database cannot be read.
pub(crate) async fn counts(reader: &SqlitePool) -> AnyResult<(i64, i64)> {
    const COUNTS: &str = "select (select count(*) from orders), (select count(*) from orders o \
        where not exists (select 1 from ends e where e.order_id = o.id))";
    Ok(sqlx::query_as(COUNTS).fetch_one(reader).await?)
}

/// Returns the stages of the orders under way, with their counts.
///
/// For people's eyes only: it looks into the bus's own table of instances, where the machine keeps
/// its state. Nothing is decided by it, and the ledger never looks there.
///
/// # Errors
/// When the database cannot be read.
pub(crate) async fn stages(reader: &SqlitePool) -> AnyResult<Vec<(String, i64)>> {
    const STAGES: &str = "select case when i.key is null then 'not begun' \
            when i.completed then 'closing' else replace(i.state, '-', ' ') end as stage, count(*) \
        from orders o left join sagabus_instance i on i.kind = 'order' and i.key = cast(o.id as text) \
        where not exists (select 1 from ends e where e.order_id = o.id) group by stage";
    let rows = sqlx::query(STAGES).fetch_all(reader).await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// Returns what an order costs, in cents: something between 9.90 and 99.89.
fn price(order_id: i64) -> i64 {
    990 + spread(order_id) % 9000
}

/// Chooses the customer's card, the same for the same order.
fn card(order_id: i64, fail_rate: u8) -> &'static str {
    let (chance, rate) = (spread(order_id) / 9000 % 100, i64::from(fail_rate));
    let card = match chance {
        chance if chance < rate => Card::Empty,
        chance if chance < rate + (rate + 4) / 5 => Card::Slow,
        _ => Card::Good,
    };
    card.number()
}

/// Spreads order numbers over a wide range, so that neighbours differ.
fn spread(order_id: i64) -> i64 {
    // Knuth's multiplicative hash; the upper half of 32 bits is the well mixed one.
    (order_id.wrapping_mul(2_654_435_761) & 0xffff_ffff) >> 4
}

/// Writes cents as euros: `12.90 €`.
pub(crate) fn euros(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{}.{:02} €", cents / 100, cents % 100)
}
