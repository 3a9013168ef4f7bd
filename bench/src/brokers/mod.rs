//! Brokers as the rows need them: names that one run uses, and what arrived there. Plain clients:
//! nothing of ours is measured here.

#[cfg(feature = "brokers")]
pub(crate) mod feed;
#[cfg(feature = "brokers")]
pub(crate) mod kafka;
#[cfg(feature = "brokers")]
pub(crate) mod proxy;
#[cfg(feature = "brokers")]
pub(crate) mod rabbitmq;
#[cfg(feature = "brokers")]
pub(crate) mod target;

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::machine;
use crate::row::Run;

/// After this long without a message nothing more comes.
const SILENCE: Duration = Duration::from_secs(10);

/// The broker of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Broker {
    RabbitMq,
    Kafka,
}

impl Broker {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RabbitMq => "RabbitMQ",
            Self::Kafka => "Kafka",
        }
    }

    /// The variable that names it.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::RabbitMq => "SAGABUS_RABBITMQ_URL",
            Self::Kafka => "SAGABUS_KAFKA_BROKERS",
        }
    }
}

/// Where the brokers are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Brokers {
    rabbitmq: Option<String>,
    kafka: Option<String>,
}

impl Brokers {
    pub(crate) fn open() -> Self {
        let named = |broker: Broker| std::env::var(broker.variable()).ok();
        Self {
            rabbitmq: named(Broker::RabbitMq),
            kafka: named(Broker::Kafka),
        }
    }

    pub(crate) fn has(&self, broker: Broker) -> bool {
        self.address(broker).is_ok()
    }

    /// Returns the URL, or the list of hosts and ports.
    pub(crate) fn address(&self, broker: Broker) -> Result<&str> {
        let address = match broker {
            Broker::RabbitMq => &self.rabbitmq,
            Broker::Kafka => &self.kafka,
        };
        let address = address.as_deref();
        address.with_context(|| format!("{} is not set", broker.variable()))
    }

    /// Returns the processor time that the broker used so far; `None` where it is on another
    /// machine.
    pub(crate) fn cpu(&self, broker: Broker) -> Option<Duration> {
        let address = self.address(broker).ok()?;
        let (_, port) = address.trim_end_matches('/').rsplit_once(':')?;
        let digits: String = port.chars().take_while(char::is_ascii_digit).collect();
        machine::cpu_of_listener(digits.parse().ok()?)
    }
}

/// What arrived.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    ids: HashSet<String>,
    messages: i64,
    /// Of bodies and headers.
    bytes: i64,
}

impl Arrived {
    fn add(&mut self, id: String, bytes: usize) {
        self.ids.insert(id);
        self.messages += 1;
        self.bytes += i64::try_from(bytes).unwrap_or(i64::MAX);
    }

    /// Notes a fault if not each of `count` messages arrived: twice where the broker's word on the
    /// first time was lost with a line.
    pub(crate) fn check_each(&self, run: &mut Run, count: u64) -> Result<()> {
        let distinct = i64::try_from(self.ids.len())?;
        run.expect("messages on the broker", distinct, i64::try_from(count)?);
        let twice = self.messages - distinct;
        run.notes.insert("arrived twice", twice as f64);
        Ok(())
    }

    /// Notes what arrived beside the rows, and a fault if it is not each of `count` messages once.
    pub(crate) fn check(&self, run: &mut Run, count: u64) -> Result<()> {
        let distinct = i64::try_from(self.ids.len())?;
        run.expect(
            "messages on the broker",
            self.messages,
            i64::try_from(count)?,
        );
        run.expect("messages on the broker twice", self.messages - distinct, 0);
        let named = [("arrived", self.messages), ("arrived bytes", self.bytes)];
        let named = named.map(|(name, count)| (name.to_owned(), count));
        run.rows.extend(named);
        Ok(())
    }
}
