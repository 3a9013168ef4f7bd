//! apalis: at least once; a task that is done stays, marked so.

use ::apalis::prelude::*;
use anyhow::Result;
use apalis_postgres::{Config, PostgresStorage};
use futures_util::stream;
use sqlx::postgres::PgPoolOptions;

use crate::tally::Tally;
use crate::{Charge, done, ready};

/// The queue, in the same words everywhere.
const QUEUE: &str = "charges";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settings {
    /// As the configuration has them.
    Default,
    /// As its example for throughput has them (`examples/basic.rs`), with larger batches.
    Best,
}

pub(crate) async fn run(url: &str, messages: u64, settings: Settings) -> Result<()> {
    let pool = PgPoolOptions::new()
        .max_connections(50)
        .connect(url)
        .await?;
    PostgresStorage::setup(&pool).await?;
    let config = Config::default().queue(QUEUE);
    let config = match settings {
        Settings::Default => config,
        Settings::Best => config.batch_size(1_000).lock_tasks(false),
    };
    let mut backend = PostgresStorage::new(&pool).with_config(config);
    let mut tasks = stream::iter((0..messages).map(|n| TaskBuilder::new(Charge::nth(n)).build()));
    backend.push_all(&mut tasks).await?;
    sqlx::query("analyze").execute(&pool).await?;
    let tally = Tally::new(messages);
    let worker = WorkerBuilder::new("bench")
        .backend(backend)
        .data(tally.clone())
        .parallelize(tokio::spawn)
        .build(charge);
    let started = ready().await?;
    let count = "select count(*) from apalis.jobs where status <> 'Done'";
    tokio::select! {
        ended = worker.run() => Ok(ended?),
        done = done(started, &tally, pool, count) => done,
    }
}

async fn charge(charge: Charge, tally: Data<Tally>) -> Result<(), BoxDynError> {
    tally.add(charge.account);
    Ok(())
}
