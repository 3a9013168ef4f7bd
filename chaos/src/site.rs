//! One set-up: a database of this run's own, and what carries the messages.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::ValueEnum;
use sagabus::{PgStore, SqliteStore};
use sagabus_testkit::kafka_broker::KafkaBroker;
use sagabus_testkit::postgres_proxy::{Mode, Places, Proxy};
use sagabus_testkit::postgres_server::PostgresServer;
use sagabus_testkit::rabbitmq_broker::RabbitMqBroker;
use sqlx::{Connection, Executor, PgConnection, SqliteConnection};

use crate::carrier::Carrier;
use crate::doubt::Doubt;

/// What is tested together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SetUp {
    /// PostgreSQL alone.
    Postgres,
    /// A SQLite file alone.
    Sqlite,
    /// PostgreSQL and RabbitMQ.
    Rabbitmq,
    /// PostgreSQL and Kafka.
    Kafka,
}

/// The tables that the workload writes. No constraint that could hide a duplicate.
const TABLES: [&str; 2] = [
    "create table transfer (id bigint not null, cents bigint not null)",
    "create table ledger (transfer bigint not null, leg text not null, cents bigint not null)",
];

/// The database; a server ends when this is dropped.
pub(crate) enum Engine {
    Sqlite(PathBuf),
    Postgres {
        server: PostgresServer,
        proxy: Proxy,
        doubt: Arc<Doubt>,
    },
}

/// The broker; it ends when this is dropped.
pub(crate) enum Broker {
    None,
    RabbitMq(RabbitMqBroker),
    Kafka(KafkaBroker),
}

/// A running set-up.
pub(crate) struct Site {
    pub(crate) engine: Engine,
    pub(crate) broker: Broker,
    pub(crate) carrier: Option<Carrier>,
}

impl Site {
    /// Makes one; `None`, with a word, where there is nothing to make it of.
    pub(crate) async fn open(set_up: SetUp, folder: &Path, seed: u64) -> Result<Option<Self>> {
        let broker = match set_up {
            SetUp::Postgres | SetUp::Sqlite => Some(Broker::None),
            SetUp::Rabbitmq => blocking(RabbitMqBroker::start).map(Broker::RabbitMq),
            SetUp::Kafka => blocking(KafkaBroker::start).map(Broker::Kafka),
        };
        let engine = match set_up {
            SetUp::Sqlite => Some(sqlite(folder).await?),
            SetUp::Postgres | SetUp::Rabbitmq | SetUp::Kafka => postgres(seed).await?,
        };
        let (Some(broker), Some(engine)) = (broker, engine) else {
            return Ok(None);
        };
        let carrier = match &broker {
            Broker::None => None,
            Broker::RabbitMq(broker) => Some(Carrier::rabbitmq(broker.url())),
            Broker::Kafka(broker) => Some(Carrier::kafka(broker.address().to_string())),
        };
        Ok(Some(Self {
            engine,
            broker,
            carrier,
        }))
    }

    /// The database as hosts reach it.
    pub(crate) fn database(&self) -> String {
        match &self.engine {
            Engine::Sqlite(path) => path.display().to_string(),
            Engine::Postgres { proxy, .. } => {
                format!("postgres://postgres@{}/postgres", proxy.address())
            }
        }
    }

    /// Lets the broker write what it knows of its queues: one that is killed within seconds of a
    /// declaration starts anew.
    pub(crate) fn settle_broker(&self) {
        if let Broker::RabbitMq(broker) = &self.broker {
            blocking(|| {
                broker.control(&["stop_app"]);
                broker.control(&["start_app"]);
            });
        }
    }

    /// Kills the broker, and starts it again.
    pub(crate) fn kill_broker(&mut self) {
        match &mut self.broker {
            Broker::None => {}
            Broker::RabbitMq(broker) => blocking(|| {
                broker.kill();
                broker.restart();
            }),
            Broker::Kafka(broker) => blocking(|| broker.restart()),
        }
    }

    /// Cuts every connection to the database, once.
    pub(crate) async fn cut_connections(&self) {
        if let Engine::Postgres { proxy, .. } = &self.engine {
            proxy.set(Mode::Refuse).await;
            proxy.set(Mode::Pass).await;
        }
    }
}

async fn sqlite(folder: &Path) -> Result<Engine> {
    let path = folder.join("bus.db");
    SqliteStore::open(&path).await?.migrate().await?;
    let url = format!("sqlite://{}", path.display());
    let mut connection = SqliteConnection::connect(&url).await?;
    for table in TABLES {
        connection.execute(table).await?;
    }
    Ok(Engine::Sqlite(path))
}

async fn postgres(seed: u64) -> Result<Option<Engine>> {
    let Some(server) = blocking(PostgresServer::start) else {
        return Ok(None);
    };
    PgStore::connect(&server.url()).await?.migrate().await?;
    let mut connection = PgConnection::connect(&server.url()).await?;
    for table in TABLES {
        connection.execute(table).await?;
    }
    let place = "select array_position(proargnames, 'h_message') - 1 from pg_proc \
        where proname = $1 and pronamespace = 'sagabus'::regnamespace";
    let mut places = [0; 2];
    for (found, name) in places.iter_mut().zip(["commit_v1", "commit_one_v2"]) {
        let at: i32 = sqlx::query_scalar(place)
            .bind(name)
            .fetch_one(&mut connection)
            .await?;
        *found = usize::try_from(at)?;
    }
    let places = Places {
        many: places[0],
        one: places[1],
    };
    let doubt = Arc::new(Doubt::new(&server.url(), seed));
    let address: SocketAddr = server.address();
    let proxy = Proxy::start(address, places, Some(doubt.clone())).await;
    Ok(Some(Engine::Postgres {
        server,
        proxy,
        doubt,
    }))
}

/// Runs what blocks, while the other threads of this program go on.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}
