//! Which services there are, and which of them are in the test set.

use clap::ValueEnum;

use super::kafka::Kafka;
use super::postgres::Postgres;
use super::rabbitmq::Rabbitmq;
use super::service::Service;

/// Every service that the project knows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Postgres,
    Rabbitmq,
    Kafka,
}

impl Kind {
    /// The name that commands and messages use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Rabbitmq => "rabbitmq",
            Self::Kafka => "kafka",
        }
    }

    /// To add a service: a file beside `postgres.rs` with its `Service`, and its arm here.
    pub(crate) fn service(self) -> &'static dyn Service {
        match self {
            Self::Postgres => &Postgres,
            Self::Rabbitmq => &Rabbitmq,
            Self::Kafka => &Kafka,
        }
    }

    /// The services of the test set, in the order in which they are started.
    pub(crate) fn test_set() -> Vec<&'static dyn Service> {
        let kinds = Self::value_variants().iter();
        kinds.map(|kind| kind.service()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn these_are_in_the_test_set() {
        let names: Vec<_> = Kind::test_set()
            .iter()
            .map(|service| service.kind().name())
            .collect();
        assert_eq!(names, ["postgres", "rabbitmq", "kafka"]);
    }
}
