//! The endpoint `orders`, and how an order is placed.

use anyhow::Result as AnyResult;
use sagabus::EndpointBuilder;
use sagabus::prelude::*;

use crate::console::{Console, Fact};
use crate::database::{Database, Reader};
use crate::gateway::Card;
use crate::machine::order_machine;
use crate::messages::{OrderCancelled, OrderFinished, PaymentOverdue, PlaceOrder};
use crate::tables::{Placing, Tables};

/// Orders that one transaction places: few enough to hold the file for some milliseconds only.
const PLACED_TOGETHER_MAX: usize = 50;

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
    mut tables: Tables,
    console: State<Console>,
) -> Result {
    tables.add_end(event.order_id, None).await?;
    console.say(Fact::Finished, event.order_id, || "finished".to_owned());
    Ok(())
}

async fn note_cancelled(
    event: OrderCancelled,
    mut tables: Tables,
    console: State<Console>,
) -> Result {
    tables.add_end(event.order_id, Some(&event.reason)).await?;
    console.say(Fact::Cancelled, event.order_id, || {
        format!("cancelled: {}", event.reason)
    });
    Ok(())
}

/// Places orders and looks at them.
#[derive(Clone)]
pub(crate) struct Shop {
    database: Database,
    reader: Reader,
    bus: Bus,
    console: Console,
    /// Cards of a hundred that are declined; a fifth as many belong to a slow bank.
    fail_rate: u8,
}

impl Shop {
    /// Makes a shop over a running host.
    pub(crate) fn new(
        database: Database,
        reader: Reader,
        bus: Bus,
        console: Console,
        fail_rate: u8,
    ) -> Self {
        Self {
            database,
            reader,
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
            let mut placing = Placing::begin(&self.database, &self.bus).await?;
            let last = placing.last().await?;
            self.place(placing, (last + 1..).take(together)).await?;
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
        let mut placing = Placing::begin(&self.database, &self.bus).await?;
        let there = placing.placed(total).await?;
        let is_missing = |id: &i64| there.binary_search(id).is_err();
        let missing = (1..=total)
            .filter(is_missing)
            .take(count.min(PLACED_TOGETHER_MAX));
        let missing: Vec<i64> = missing.collect();
        let count = missing.len();
        self.place(placing, missing.into_iter()).await?;
        Ok(count)
    }

    /// Writes orders and sends their commands: one commit for both, or neither.
    async fn place(&self, mut placing: Placing, ids: impl Iterator<Item = i64>) -> AnyResult<()> {
        let mut placed = Vec::new();
        for order_id in ids {
            let (cents, card) = (price(order_id), card(order_id, self.fail_rate));
            let card = card.to_owned();
            let command = PlaceOrder {
                order_id,
                cents,
                card,
            };
            placing.add(command).await?;
            placed.push((order_id, cents));
        }
        placing.commit().await?;
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
        counts(&self.reader).await
    }
}

/// Returns how many orders there are and how many of them are under way.
///
/// # Errors
/// When the database cannot be read.
pub(crate) async fn counts(reader: &Reader) -> AnyResult<(i64, i64)> {
    const COUNTS: &str = "select (select count(*) from orders), (select count(*) from orders o \
        where not exists (select 1 from ends e where e.order_id = o.id))";
    let counts = reader.rows(COUNTS).await?;
    Ok(counts.first().copied().unwrap_or_default())
}

/// Returns the stages of the orders under way, with their counts.
///
/// For people's eyes only: it looks into the bus's own table of instances, where the machine keeps
/// its state. Nothing is decided by it, and the ledger never looks there.
///
/// # Errors
/// When the database cannot be read.
pub(crate) async fn stages(reader: &Reader) -> AnyResult<Vec<(String, i64)>> {
    macro_rules! stages {
        ($instances:literal) => {
            concat!(
                "select case when i.key is null then 'not begun' when i.completed then 'closing' \
                 else replace(i.state, '-', ' ') end as stage, count(*) from orders o left join ",
                $instances,
                " i on i.kind = 'order' and i.key = cast(o.id as text) \
                 where not exists (select 1 from ends e where e.order_id = o.id) group by stage"
            )
        };
    }
    let query = match reader {
        Reader::Sqlite(_) => stages!("sagabus_instance"),
        Reader::Postgres(_) => stages!("sagabus.instance"),
    };
    reader.rows(query).await
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
