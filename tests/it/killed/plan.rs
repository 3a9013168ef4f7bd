//! What a child process is told, by environment variables.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::process::Child;

/// Which database a cell runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Database {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database of its own.
    Postgres(String),
}

/// What carries the messages, where it is not the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Broker {
    /// The fault broker at this address.
    Fault(SocketAddr),
    /// Kafka at these brokers, with topics and groups of this prefix.
    #[cfg(all(unix, feature = "kafka"))]
    Kafka { brokers: String, prefix: String },
    /// RabbitMQ at this URL, with exchanges and queues in this namespace.
    #[cfg(all(unix, feature = "rabbitmq"))]
    RabbitMq { url: String, namespace: String },
}

impl Broker {
    /// As a child is told.
    fn shown(&self) -> String {
        match self {
            Self::Fault(address) => format!("fault {address}"),
            #[cfg(all(unix, feature = "kafka"))]
            Self::Kafka { brokers, prefix } => format!("kafka {brokers} {prefix}"),
            #[cfg(all(unix, feature = "rabbitmq"))]
            Self::RabbitMq { url, namespace } => format!("rabbitmq {url} {namespace}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let words: Vec<_> = text.split(' ').collect();
        match &words[..] {
            ["fault", address] => Some(Self::Fault(address.parse().ok()?)),
            #[cfg(all(unix, feature = "kafka"))]
            ["kafka", brokers, prefix] => Some(Self::Kafka {
                brokers: (*brokers).to_owned(),
                prefix: (*prefix).to_owned(),
            }),
            #[cfg(all(unix, feature = "rabbitmq"))]
            ["rabbitmq", url, namespace] => Some(Self::RabbitMq {
                url: (*url).to_owned(),
                namespace: (*namespace).to_owned(),
            }),
            _ => None,
        }
    }
}

/// What one child does: place transfers up to `transfers`, run the host until all are settled.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) database: Database,
    /// What carries the messages, if not the database.
    pub(crate) broker: Option<Broker>,
    pub(crate) transfers: i64,
    /// Where the child is to kill itself: a point's name and which hit.
    pub(crate) fault: Option<(&'static str, u64)>,
    /// How long the child may take.
    pub(crate) patience: Duration,
}

const DATABASE: &str = "SAGABUS_KILL_DATABASE";
const BROKER: &str = "SAGABUS_KILL_BROKER";
const TRANSFERS: &str = "SAGABUS_KILL_TRANSFERS";

impl Plan {
    /// Describes the child: this binary, running the one test that is no test.
    pub(crate) fn child(&self) -> Child {
        let database = match &self.database {
            Database::Sqlite(path) => path.display().to_string(),
            Database::Postgres(url) => url.clone(),
        };
        let mut child = Child::new("killed::child::runs_only_as_a_child")
            .with(DATABASE, database)
            .with(TRANSFERS, self.transfers.to_string());
        if let Some(broker) = &self.broker {
            child = child.with(BROKER, broker.shown());
        }
        match self.fault {
            Some((point, hit)) => child.killed_at(point, hit),
            None => child,
        }
    }

    /// Reads what the parent asked for; `None` in the parent itself.
    pub(crate) fn from_environment() -> Option<Assignment> {
        let database = std::env::var(DATABASE).ok()?;
        let transfers = std::env::var(TRANSFERS).ok()?.parse().ok()?;
        let broker = std::env::var(BROKER)
            .ok()
            .and_then(|told| Broker::parse(&told));
        let is_postgres = database.starts_with("postgres");
        let database = if is_postgres {
            Database::Postgres(database)
        } else {
            Database::Sqlite(database.into())
        };
        Some(Assignment {
            database,
            broker,
            transfers,
        })
    }
}

/// What a child has to do.
#[derive(Clone, Debug)]
pub(crate) struct Assignment {
    pub(crate) database: Database,
    pub(crate) broker: Option<Broker>,
    pub(crate) transfers: i64,
}
