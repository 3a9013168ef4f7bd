//! graphile_worker: at least once; a job that is done is deleted.
//!
//! The settings are those of the project's own benchmark `perf_test`, the fastest that it documents.
//! As it comes it asks once a second, per core, for a job that nobody announced: a backlog of
//! thousands is no use of that which can be compared.

use std::time::Duration;

use anyhow::Result;
use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, WorkerContext,
    WorkerOptions, WorkerUtils,
};
use sqlx::postgres::PgPoolOptions;

use crate::tally::Tally;
use crate::{Charge, done, ready};

/// Jobs in one call that adds them.
const PART: u64 = 5_000;

impl TaskHandler for Charge {
    const IDENTIFIER: &'static str = "charge";

    async fn run(self, cx: WorkerContext) -> impl IntoTaskHandlerResult {
        match cx.get_ext::<Tally>() {
            Some(tally) => {
                tally.add(self.account);
                Ok(())
            }
            None => Err("no tally"),
        }
    }
}

pub(crate) async fn run(url: &str, messages: u64) -> Result<()> {
    let pool = PgPoolOptions::new()
        .max_connections(100)
        .connect(url)
        .await?;
    let utils = WorkerUtils::new(pool.clone(), "graphile_worker");
    utils.migrate().await?;
    let mut at = 0;
    while at < messages {
        let end = messages.min(at + PART);
        let jobs: Vec<RawJobSpec> = (at..end).map(job).collect::<Result<_>>()?;
        utils.add_raw_jobs(&jobs).await?;
        at = end;
    }
    sqlx::query("analyze").execute(&pool).await?;
    let tally = Tally::new(messages);
    let options = WorkerOptions::default()
        .pg_pool(pool.clone())
        .schema("graphile_worker")
        .add_extension(tally.clone())
        .define_job::<Charge>()
        .concurrency(500)
        .poll_interval(Duration::from_millis(5))
        .complete_job_batch_delay(Duration::from_millis(5))
        .local_queue(LocalQueueConfig::default().with_size(5_000));
    let worker = options.init().await?;
    let started = ready().await?;
    let count = "select count(*) from graphile_worker._private_jobs";
    tokio::select! {
        ended = worker.run() => Ok(ended?),
        done = done(started, &tally, pool, count) => done,
    }
}

fn job(n: u64) -> Result<RawJobSpec> {
    Ok(RawJobSpec {
        identifier: Charge::IDENTIFIER.to_owned(),
        payload: serde_json::to_value(Charge::nth(n))?,
        spec: JobSpec::default(),
    })
}
