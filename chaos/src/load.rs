//! Transfers at a steady pace, and how far behind they are.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use sagabus::Bus;
use sagabus_core::Outgoing;
use sagabus_testkit::transfers::StartTransfer;
use sqlx::{Connection, PgConnection, SqliteConnection};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::Placed;
use crate::site::{Engine, Site};

/// Transfers that are placed together.
const BATCH: usize = 50;
/// Between two helpings.
const HELPING: Duration = Duration::from_millis(20);
/// Between two looks at what is finished.
const LOOKS: Duration = Duration::from_millis(250);
/// How many of the oldest a look asks for: a long backlog must not cost what would make it shorter.
const ASKED: usize = 1_000;

/// How fast transfers are placed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// As many as there is room for below so many that are not finished.
    Ahead(usize),
    /// So many a second, whatever becomes of them; what could not be placed in its time is late.
    PerSecond { rate: f64, since: Instant, of: i64 },
    /// None: what is there is finished.
    Rest,
    /// It is over.
    Over,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) placed: i64,
    pub(crate) finished: i64,
    /// For how long the oldest has not been finished.
    pub(crate) behind: Duration,
}

/// Who places them, and looks at the ledger.
pub(crate) struct Load {
    bus: Bus,
    ledger: Ledger,
    /// What is not finished, and since when it is due.
    open: BTreeMap<i64, Instant>,
    placed: Placed,
    looked: Instant,
}

impl Load {
    pub(crate) async fn new(bus: Bus, site: &Site) -> Result<Self> {
        let ledger = Ledger::of(site);
        ledger.prepare().await?;
        Ok(Self {
            bus,
            ledger,
            open: BTreeMap::new(),
            placed: Placed::default(),
            looked: Instant::now(),
        })
    }

    /// Places transfers as it is told, and tells how far they are.
    pub(crate) async fn run(
        mut self,
        pace: watch::Receiver<Pace>,
        progress: watch::Sender<Progress>,
    ) -> Result<Placed> {
        loop {
            let now = *pace.borrow();
            match now {
                Pace::Over => return Ok(self.placed),
                Pace::Rest => {}
                Pace::Ahead(most) => {
                    while self.open.len() < most {
                        self.place(vec![Instant::now(); BATCH]).await?;
                    }
                }
                Pace::PerSecond { rate, since, of } => {
                    let due_of = |n: i64| since + Duration::from_secs_f64((n - of) as f64 / rate);
                    let first = self.placed.attempts;
                    let due = (first..).map(due_of).take(BATCH);
                    let due: Vec<_> = due.take_while(|at| *at <= Instant::now()).collect();
                    let is_whole = due.len() == BATCH;
                    self.place(due).await?;
                    if is_whole && self.looked.elapsed() < LOOKS {
                        continue;
                    }
                }
            }
            if self.looked.elapsed() >= LOOKS {
                self.look().await;
            }
            let oldest = self.open.first_key_value().map(|(_, due)| due.elapsed());
            progress.send_replace(Progress {
                placed: self.placed.attempts,
                finished: self.placed.attempts - i64::try_from(self.open.len())?,
                behind: oldest.unwrap_or_default(),
            });
            tokio::time::sleep(HELPING).await;
        }
    }

    /// Places one for each time; the call waits for as long as the database is away. Every second
    /// number only: the others would have a row of the API's own.
    async fn place(&mut self, due: Vec<Instant>) -> Result<()> {
        let mut batch = Vec::with_capacity(due.len());
        for at in due {
            let id = self.placed.attempts * 2 + 1;
            self.placed.attempts += 1;
            let message = Outgoing::new(&StartTransfer { id })?;
            self.placed.messages.push(message.envelope.id);
            self.placed.acknowledged.push(id);
            self.open.insert(id, at);
            batch.push(message);
        }
        if batch.is_empty() {
            return Ok(());
        }
        let sent = self.bus.send_all(batch).await;
        sent.context("transfers are placed when the database is back")
    }

    /// What cannot be seen now is seen at the next look.
    async fn look(&mut self) {
        let oldest: Vec<i64> = self.open.keys().take(ASKED).copied().collect();
        for id in self.ledger.finished(&oldest).await.unwrap_or_default() {
            self.open.remove(&id);
        }
        self.looked = Instant::now();
    }
}

/// The ledger, read past whatever stands between it and the hosts.
enum Ledger {
    Sqlite(String),
    Postgres(String),
}

/// No rule that could hide a duplicate: what is found by it may be there twice.
const INDEX: &str = "create index ledger_transfer on ledger (transfer)";
const OF_POSTGRES: &str = "select transfer from ledger \
    where transfer = any($1) and leg in ('credit', 'refund')";
const OF_SQLITE: &str = "select transfer from ledger \
    where transfer in (select value from json_each(?)) and leg in ('credit', 'refund')";

impl Ledger {
    fn of(site: &Site) -> Self {
        match &site.engine {
            Engine::Sqlite(path) => Self::Sqlite(format!("sqlite://{}", path.display())),
            Engine::Postgres { server, .. } => Self::Postgres(server.url()),
        }
    }

    async fn prepare(&self) -> Result<()> {
        match self {
            Self::Sqlite(url) => {
                let mut connection = SqliteConnection::connect(url).await?;
                sqlx::query(INDEX).execute(&mut connection).await?;
            }
            Self::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await?;
                sqlx::query(INDEX).execute(&mut connection).await?;
            }
        }
        Ok(())
    }

    /// Those of them whose money has arrived, or is back.
    async fn finished(&self, open: &[i64]) -> Result<Vec<i64>> {
        Ok(match self {
            Self::Sqlite(url) => {
                let mut connection = SqliteConnection::connect(url).await?;
                let query = sqlx::query_scalar(OF_SQLITE).bind(serde_json::to_string(open)?);
                query.fetch_all(&mut connection).await?
            }
            Self::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await?;
                let query = sqlx::query_scalar(OF_POSTGRES).bind(open);
                query.fetch_all(&mut connection).await?
            }
        })
    }
}
