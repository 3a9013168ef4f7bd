//! Which services there are, and which of them are in the test set.

use clap::ValueEnum;

use super::kafka::Kafka;
use super::postgres::Postgres;
use super::service::Service;

/// Every service that the project knows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Postgres,
    Rabbitmq,
    Kafka,
}

/// Whether tests use a service.
pub(crate) enum Membership {
    /// Started by `services up`, shown by `services status`.
    InTestSet(&'static dyn Service),
    /// No test needs it yet, so nothing here starts it.
    NotYet,
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
    pub(crate) fn membership(self) -> Membership {
        match self {
            Self::Postgres => Membership::InTestSet(&Postgres),
            Self::Rabbitmq => Membership::NotYet,
            Self::Kafka => Membership::InTestSet(&Kafka),
        }
    }

    /// The services of the test set, in the order in which they are started.
    pub(crate) fn test_set() -> Vec<&'static dyn Service> {
        let kinds = Self::value_variants().iter();
        kinds
            .filter_map(|kind| match kind.membership() {
                Membership::InTestSet(service) => Some(service),
                Membership::NotYet => None,
            })
            .collect()
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
        assert_eq!(names, ["postgres", "kafka"]);
    }
}
