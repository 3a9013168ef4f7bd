//! What others do with the same work: messages that wait in PostgreSQL go through a handler that
//! does nothing but count, or to an exchange of RabbitMQ.
//!
//! Called as `PEER DATABASE-URL MESSAGES` it makes its tables, puts the messages there, says
//! `ready`, waits for a line, handles all, says what it did as one line of JSON, and waits for
//! another line: what its connections cost is read until then. With `EXCHANGE WARM-UP` behind them
//! it is a relay, which sends that many before.

mod apalis;
mod graphile;
mod hexeract;
mod tally;

use std::io::BufRead as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::tally::Tally;

/// Longer than anybody needs for what one run hands out.
const PATIENCE: Duration = Duration::from_secs(300);

/// The same body as the bench's own messages have.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Charge {
    account: String,
    cents: i64,
    note: String,
}

impl Charge {
    fn nth(n: u64) -> Self {
        Self {
            account: format!("account-{n:09}"),
            cents: 100,
            note: "quarterly settlement of the standing order, booked by the clearing desk after \
                   the usual review; see the attached statement for the details of every single line"
                .to_owned(),
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [peer, url, messages] => handle(peer, url, messages.parse()?).await,
        [peer, url, messages, exchange, warm_up] => {
            let task = hexeract::Task {
                url,
                messages: messages.parse()?,
                exchange,
                warm_up: warm_up.parse()?,
            };
            relay(peer, task).await
        }
        _ => bail!("PEER DATABASE-URL MESSAGES [EXCHANGE WARM-UP]"),
    }
}

async fn handle(peer: &str, url: &str, messages: u64) -> Result<()> {
    match peer {
        "graphile" => graphile::run(url, messages).await,
        "apalis-default" => apalis::run(url, messages, apalis::Settings::Default).await,
        "apalis" => apalis::run(url, messages, apalis::Settings::Best).await,
        _ => bail!("there is no peer `{peer}`"),
    }
}

async fn relay(peer: &str, task: hexeract::Task<'_>) -> Result<()> {
    match peer {
        "hexeract-default" => hexeract::run(task, hexeract::Settings::Default).await,
        "hexeract" => hexeract::run(task, hexeract::Settings::Best).await,
        _ => bail!("there is no relay `{peer}`"),
    }
}

/// Says that the messages wait, and returns when it is time to handle them.
async fn ready() -> Result<Instant> {
    println!("ready");
    order().await?;
    Ok(Instant::now())
}

/// Says what became of the messages, and returns when the process may end. What is left counts as
/// long as the peer needs to write down that it is done.
async fn done(
    started: Instant,
    tally: &Tally,
    pool: sqlx::PgPool,
    count: &'static str,
) -> Result<()> {
    let waiting = until_done(tally, &pool, count).await?;
    let seconds = started.elapsed().as_secs_f64();
    let (handled, distinct) = tally.counts();
    println!(
        "{}",
        serde_json::json!({
            "seconds": seconds,
            "handled": handled,
            "distinct": distinct,
            "left": waiting,
        })
    );
    order().await
}

/// Waits until all messages are handled and the peer has written down that they are; returns how many
/// are left.
async fn until_done(tally: &Tally, pool: &sqlx::PgPool, count: &'static str) -> Result<i64> {
    let deadline = Instant::now() + PATIENCE;
    let mut waiting = i64::MAX;
    while waiting > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(2)).await;
        // Counting rows costs the server: nobody does it before all are handled.
        if tally.is_full() {
            waiting = sqlx::query_scalar(count).fetch_one(pool).await?;
        }
    }
    Ok(waiting)
}

/// Waits for a line.
async fn order() -> Result<()> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| ())
    });
    read.await?.context("nobody gives orders")
}
