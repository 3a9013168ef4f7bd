//! hexeract: the handler of its outbox's worker sends to RabbitMQ and waits for the confirm; at least
//! once, in order with one worker only. What is done stays, marked so.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::hexeract::bus::{Exchange, ExchangeKind, RawBusPublish};
use ::hexeract::bus_rabbitmq::RabbitMqTransport;
use ::hexeract::core::HandlerContext;
use ::hexeract::outbox::worker::{BoxFuture, ErasedHandler, OutboxWorker, OutboxWorkerConfig};
use ::hexeract::outbox::{Event, OutboxEnvelope, OutboxError, OutboxPublisher};
use ::hexeract::outbox_sql::postgres::ensure_schema;
use ::hexeract::outbox_sql::{PgOutboxPublisher, PgOutboxStore};
use anyhow::{Context as _, Result};
use sqlx08::postgres::{PgPool, PgPoolOptions};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::tally::Tally;
use crate::{Charge, done, ready, until_done};

const TABLE: &str = "charges";
/// Rows that are not sent, or not marked so.
const LEFT: &str = "select count(*) from charges where delivered_at is null";
/// Messages in one transaction that adds them.
const PART: u64 = 1_000;
/// Channels of one of its connections at most.
const CHANNELS: usize = 8;
/// Workers at once in its fastest settings. Each sends one message and waits for its confirm and for
/// the commit that marks it, so many at once share a write of the log.
const WORKERS: usize = 32;

/// What one run has to do.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a> {
    pub(crate) url: &'a str,
    pub(crate) messages: u64,
    pub(crate) exchange: &'a str,
    pub(crate) warm_up: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settings {
    /// As its builder has them, with one worker.
    Default,
    /// Many workers, larger batches, no pause between them, no look at a connection before its use.
    Best,
}

impl Event for Charge {
    const EVENT_TYPE: &'static str = "bench.charge";
}

/// Sends what the worker hands over, as it is stored.
struct Relay {
    broker: Arc<RabbitMqTransport>,
    tally: Tally,
}

impl ErasedHandler for Relay {
    fn event_type(&self) -> &'static str {
        Charge::EVENT_TYPE
    }

    fn handle<'a>(
        &'a self,
        envelope: &'a OutboxEnvelope,
        _: &'a HandlerContext,
    ) -> BoxFuture<'a, Result<(), OutboxError>> {
        Box::pin(async move {
            let (id, body) = (envelope.event_id, &envelope.payload);
            let sent = self.broker.publish_raw("", id, Charge::EVENT_TYPE, body);
            let failed =
                |error: ::hexeract::bus::BusError| OutboxError::Internal(error.to_string());
            sent.await.map_err(failed)?;
            self.tally.add(id.to_string());
            Ok(())
        })
    }
}

pub(crate) async fn run(task: Task<'_>, settings: Settings) -> Result<()> {
    let workers = match settings {
        Settings::Default => 1,
        Settings::Best => WORKERS,
    };
    let pool = PgPoolOptions::new()
        .max_connections(u32::try_from(workers)?)
        .test_before_acquire(settings == Settings::Default)
        .connect(task.url)
        .await?;
    ensure_schema(&pool, TABLE).await?;
    let counting = sqlx::PgPool::connect(task.url).await?;
    let brokers = brokers(task.exchange, workers).await?;

    fill(&pool, 0..task.warm_up).await?;
    let before = Tally::new(task.warm_up);
    let running = Workers::start(&pool, &brokers, workers, settings, &before)?;
    let left = until_done(&before, &counting, LEFT).await?;
    anyhow::ensure!(left == 0, "{left} of those that warm up are left");
    running.stop().await?;

    fill(&pool, task.warm_up..task.warm_up + task.messages).await?;
    sqlx::query("analyze").execute(&counting).await?;
    let tally = Tally::new(task.messages);
    let started = ready().await?;
    let running = Workers::start(&pool, &brokers, workers, settings, &tally)?;
    done(started, &tally, counting, LEFT).await?;
    running.stop().await
}

/// Connects often enough that each worker has a channel.
async fn brokers(exchange: &str, workers: usize) -> Result<Vec<Arc<RabbitMqTransport>>> {
    let url = std::env::var("SAGABUS_RABBITMQ_URL").context("SAGABUS_RABBITMQ_URL is not set")?;
    let mut brokers = Vec::new();
    for _ in 0..workers.div_ceil(CHANNELS) {
        let exchange = Exchange::new(exchange, ExchangeKind::Fanout)?;
        brokers.push(Arc::new(
            RabbitMqTransport::with_exchange(&url, exchange).await?,
        ));
    }
    Ok(brokers)
}

/// Puts the messages of these numbers there.
async fn fill(pool: &PgPool, numbers: std::ops::Range<u64>) -> Result<()> {
    let rows = PgOutboxPublisher::new(pool.clone(), TABLE)?;
    let mut at = numbers.start;
    while at < numbers.end {
        let end = numbers.end.min(at + PART);
        let mut tx = pool.begin().await?;
        for n in at..end {
            rows.publish_in_tx(&mut tx, &Charge::nth(n)).await?;
        }
        tx.commit().await?;
        at = end;
    }
    Ok(())
}

/// Workers at work.
struct Workers {
    stopping: CancellationToken,
    running: JoinSet<Result<(), OutboxError>>,
}

impl Workers {
    fn start(
        pool: &PgPool,
        brokers: &[Arc<RabbitMqTransport>],
        count: usize,
        settings: Settings,
        tally: &Tally,
    ) -> Result<Self> {
        let config = match settings {
            Settings::Default => OutboxWorkerConfig::default(),
            Settings::Best => OutboxWorkerConfig {
                poll_interval: Duration::from_millis(1),
                batch_size: 100,
                min_cycle_delay: Duration::ZERO,
                ..OutboxWorkerConfig::default()
            },
        };
        let stopping = CancellationToken::new();
        let mut running = JoinSet::new();
        for (_, broker) in (0..count).zip(brokers.iter().cycle()) {
            let relay = Relay {
                broker: Arc::clone(broker),
                tally: tally.clone(),
            };
            let relay: Arc<dyn ErasedHandler> = Arc::new(relay);
            let handlers = HashMap::from([(Charge::EVENT_TYPE, relay)]);
            let store = PgOutboxStore::new(pool.clone(), TABLE)?;
            let worker = OutboxWorker::new(store, handlers, config.clone());
            running.spawn(worker.run(stopping.clone()));
        }
        Ok(Self { stopping, running })
    }

    async fn stop(mut self) -> Result<()> {
        self.stopping.cancel();
        while let Some(ended) = self.running.join_next().await {
            ended??;
        }
        Ok(())
    }
}
