//! What a child process is told, by environment variables.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::guards::Guard;
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
    /// What the child does without, so that a cell can be seen to fail.
    pub(crate) removed: Option<Guard>,
    /// How long the child waits for everything to be done, before it fails.
    pub(crate) quiet_within: Duration,
    /// How long the child may take.
    pub(crate) patience: Duration,
}

const DATABASE: &str = "SAGABUS_KILL_DATABASE";
const BROKER: &str = "SAGABUS_KILL_BROKER";
const TRANSFERS: &str = "SAGABUS_KILL_TRANSFERS";
const REMOVED: &str = "SAGABUS_KILL_REMOVED";
const QUIET_WITHIN: &str = "SAGABUS_KILL_QUIET_MS";

impl Plan {
    /// Describes the child: this binary, running the one test that is no test.
    pub(crate) fn child(&self) -> Child {
        self.child_of("killed::child::runs_only_as_a_child")
    }

    /// The same with another workload.
    pub(crate) fn child_of(&self, test: &'static str) -> Child {
        let database = match &self.database {
            Database::Sqlite(path) => path.display().to_string(),
            Database::Postgres(url) => url.clone(),
        };
        let mut child = Child::new(test)
            .with(DATABASE, database)
            .with(TRANSFERS, self.transfers.to_string())
            .with(QUIET_WITHIN, self.quiet_within.as_millis().to_string());
        if let Some(guard) = self.removed {
            child = child.with(REMOVED, guard.as_str());
        }
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
        let removed = std::env::var(REMOVED).ok();
        let removed = removed.and_then(|told| Guard::named(&told));
        let quiet_ms = std::env::var(QUIET_WITHIN).ok()?.parse().ok()?;
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
            removed,
            quiet_within: Duration::from_millis(quiet_ms),
        })
    }
}

/// What a child has to do.
#[derive(Clone, Debug)]
pub(crate) struct Assignment {
    pub(crate) database: Database,
    pub(crate) broker: Option<Broker>,
    pub(crate) transfers: i64,
    pub(crate) removed: Option<Guard>,
    pub(crate) quiet_within: Duration,
}

impl Assignment {
    /// Returns where the API's row is written before its message, where they do not share a
    /// transaction.
    pub(crate) fn places_apart(&self) -> Option<&str> {
        match &self.database {
            Database::Postgres(url) if self.removed == Some(Guard::OneTransaction) => Some(url),
            _ => None,
        }
    }
}
