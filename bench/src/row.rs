//! What a row of the table is: how it is run, what it found, and what it promised.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::brokers::{Broker, Brokers};
use crate::ratio::{Promise, Ratio};
use crate::rows::peers;
use crate::services::{Backend, Services};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    /// Repetitions of a comparison.
    pub(crate) reps: usize,
    /// About how long one subject runs in one repetition.
    pub(crate) seconds: f64,
    /// Whether all rows together have to end soon.
    pub(crate) is_short: bool,
    /// Rows that a growth row grows to.
    pub(crate) grown: u64,
    /// How long the row runs that is about time.
    pub(crate) minutes: f64,
    /// Rows that wait for a broker.
    pub(crate) backlog: u64,
    /// The same where there are very many.
    pub(crate) long_backlog: u64,
    /// Run this subject of comparisons alone: to look into it with other tools.
    pub(crate) alone: Option<Alone>,
}

impl Profile {
    /// Returns how many large rows a growth row grows to: a tenth where time is short, since a
    /// database with 4 KiB for each of a million is copied for minutes.
    pub(crate) fn grown_large(&self) -> u64 {
        match self.is_short {
            true => self.grown / 10,
            false => self.grown,
        }
    }

    /// Returns how long a row runs that is about time and not about a number of messages: a minute
    /// in the full profile.
    pub(crate) fn stretch(&self) -> Duration {
        Duration::from_secs_f64(self.seconds * 12.0)
    }
}

/// The subject that runs alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub(crate) enum Alone {
    /// The first of a comparison: ours.
    Ours,
    /// The other one.
    Bare,
}

/// Short: for a look, and as a guard.
pub(crate) const QUICK: Profile = Profile {
    name: "quick",
    reps: 3,
    seconds: 0.5,
    is_short: true,
    grown: 1_000_000,
    minutes: 0.5,
    backlog: 20_000,
    long_backlog: 100_000,
    alone: None,
};

/// For figures that are published.
pub(crate) const FULL: Profile = Profile {
    name: "full",
    reps: 7,
    seconds: 5.0,
    is_short: false,
    grown: 1_000_000,
    minutes: 10.0,
    backlog: 200_000,
    long_backlog: 10_000_000,
    alone: None,
};

/// For curves: each has three points or more.
pub(crate) const GROWTH: Profile = Profile {
    name: "growth",
    reps: 5,
    seconds: 2.0,
    is_short: false,
    grown: 1_000_000,
    minutes: 10.0,
    backlog: 50_000,
    long_backlog: 1_000_000,
    alone: None,
};

/// For others' programs beside ours.
pub(crate) const PEERS: Profile = Profile {
    name: "peers",
    seconds: 3.0,
    ..GROWTH
};

/// What every row is given.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) profile: Profile,
    pub(crate) services: Services,
    pub(crate) brokers: Brokers,
}

/// One line of the table.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) backend: Backend,
    pub(crate) broker: Option<Broker>,
    /// The program of others that it needs.
    pub(crate) peer: Option<peers::Program>,
    pub(crate) run: for<'a> fn(&'a Bench, Backend) -> BoxFuture<'a, Result<Found>>,
}

impl Row {
    /// Says what the row runs on.
    pub(crate) fn on(&self) -> &'static str {
        match (self.backend, self.broker) {
            (backend, None) => backend.name(),
            (Backend::Postgres, Some(Broker::RabbitMq)) => "PostgreSQL, RabbitMQ",
            (Backend::Postgres, Some(Broker::Kafka)) => "PostgreSQL, Kafka",
            (Backend::Sqlite, Some(Broker::RabbitMq)) => "SQLite, RabbitMQ",
            (Backend::Sqlite, Some(Broker::Kafka)) => "SQLite, Kafka",
        }
    }

    /// Names what tells this row from others of its name.
    pub(crate) fn place(&self) -> &'static str {
        self.broker.map_or(self.backend.name(), Broker::name)
    }

    /// Returns how much disk the row needs at most: the template of its database, the copy of one
    /// run, and what the run adds, log included.
    pub(crate) fn disk(&self, profile: &Profile) -> u64 {
        const GIB: u64 = 1 << 30;
        // As PostgreSQL and SQLite store them, with their indexes, rounded up.
        let (count, each) = match self.name {
            "H5-4k" | "H5-4k-dense" => (profile.grown_large(), 6_000),
            "H5-256" => (profile.grown, 1_000),
            "H4" | "D1" => (profile.grown, 400),
            "R4" => (profile.long_backlog, 900),
            "R5-dead" => (profile.grown_large(), 900),
            "M1-backlog" => (profile.long_backlog, 1_700),
            "G-instances" | "G-labels" | "G-inbox" | "G-outbox" | "G-history" | "G-letters" => {
                (profile.grown, 1_200)
            }
            // What is written in a minute at 30,000 messages a second, of 500 bytes.
            "STEADY" => ((profile.minutes * 1_800_000.0) as u64, 250),
            _ => (0, 0),
        };
        4 * GIB + count * each * 2
    }

    /// Names the services without which the row cannot run.
    pub(crate) fn needs(&self) -> impl Iterator<Item = &'static str> {
        let database = (self.backend == Backend::Postgres).then_some("postgres");
        let broker = self.broker.map(|broker| match broker {
            Broker::RabbitMq => "rabbitmq",
            Broker::Kafka => "kafka",
        });
        let peer = self.peer.map(peers::Program::name);
        database.into_iter().chain(broker).chain(peer)
    }
}

/// What a row found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Runs by subject, in the order of the repetitions.
    #[serde(borrow)]
    pub(crate) runs: BTreeMap<&'static str, Vec<Run>>,
    /// Subjects as points of a curve, in the order in which they grow; none where there is no curve.
    #[serde(borrow, default)]
    pub(crate) curve: Vec<&'static str>,
    /// What is divided by what, and the result.
    pub(crate) ratios: Vec<Ratio>,
    /// What was promised.
    pub(crate) promises: Vec<Promise>,
    /// Why there is no figure.
    pub(crate) faults: Vec<String>,
}

impl Found {
    /// Returns the subjects: as they grow, or by name.
    pub(crate) fn subjects(&self) -> Vec<&'static str> {
        let grown = self.curve.iter().copied();
        let grown: Vec<_> = grown.filter(|name| self.runs.contains_key(name)).collect();
        if grown.is_empty() {
            return self.runs.keys().copied().collect();
        }
        grown
    }
}

/// One run of one subject.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Run {
    pub(crate) messages: u64,
    pub(crate) seconds: f64,
    /// Processor time of this process.
    pub(crate) cpu_seconds: f64,
    /// Processor time of the database's processes, where they can be seen.
    pub(crate) server_cpu_seconds: Option<f64>,
    /// Processor time of the broker, where it can be seen.
    pub(crate) broker_cpu_seconds: Option<f64>,
    /// Bytes of write-ahead log (PostgreSQL) or written by this process (SQLite).
    pub(crate) bytes: Option<u64>,
    /// Most memory of this process during the run, with what the bench itself holds.
    pub(crate) most_kib: Option<u64>,
    /// Rows per table at the end.
    pub(crate) rows: BTreeMap<String, i64>,
    pub(crate) latency: Option<Latency>,
    /// Other things worth knowing: groups, round trips.
    #[serde(borrow)]
    pub(crate) notes: BTreeMap<&'static str, f64>,
    /// What was wrong.
    pub(crate) faults: Vec<String>,
}

impl Run {
    pub(crate) fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    pub(crate) fn cpu_micros(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.messages as f64
    }

    pub(crate) fn most_mib(&self) -> Option<f64> {
        Some(self.most_kib? as f64 / 1024.0)
    }

    pub(crate) fn server_cpu_micros(&self) -> Option<f64> {
        Some(self.server_cpu_seconds? * 1e6 / self.messages as f64)
    }

    pub(crate) fn broker_cpu_micros(&self) -> Option<f64> {
        Some(self.broker_cpu_seconds? * 1e6 / self.messages as f64)
    }

    pub(crate) fn p50(&self) -> f64 {
        self.latency.map_or(f64::NAN, |latency| latency.p50)
    }

    pub(crate) fn p99(&self) -> f64 {
        self.latency.map_or(f64::NAN, |latency| latency.p99)
    }

    pub(crate) fn p999(&self) -> f64 {
        self.latency.map_or(f64::NAN, |latency| latency.p999)
    }

    /// Notes a fault when something is not as it must be.
    pub(crate) fn expect(&mut self, what: &str, is: i64, must_be: i64) {
        if is != must_be {
            self.faults
                .push(format!("{what}: {is} where {must_be} must be"));
        }
    }
}

/// A distribution, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) count: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Not in files of before 2026-11.
    #[serde(default)]
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Latency {
    pub(crate) fn of(mut samples: Vec<Duration>) -> Option<Self> {
        samples.sort_unstable();
        let last = samples.len().checked_sub(1)?;
        let at = |part: f64| samples[(last as f64 * part).round() as usize].as_secs_f64() * 1e3;
        Some(Self {
            count: samples.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows;

    #[test]
    fn a_long_backlog_needs_disk_by_its_length() {
        let needs = |name: &str, profile: &Profile| {
            let row = rows::every().into_iter().find(|row| row.name == name);
            row.map(|row| row.disk(profile))
        };
        let least = needs("H1", &FULL);
        let longer = Profile {
            grown: 10 * FULL.grown,
            long_backlog: 10 * FULL.long_backlog,
            ..FULL
        };
        for name in ["R4", "R5-dead", "M1-backlog"] {
            let is_built = cfg!(feature = "brokers");
            assert_eq!(needs(name, &FULL).is_some(), is_built, "{name}");
            assert!(
                needs(name, &longer) > needs(name, &FULL) || !is_built,
                "{name}"
            );
            assert!(needs(name, &FULL) > least || !is_built, "{name}");
        }
    }

    #[test]
    fn a_row_about_time_takes_a_minute_in_full_and_seconds_in_quick() {
        assert_eq!(FULL.stretch(), Duration::from_secs(60));
        assert_eq!(QUICK.stretch(), Duration::from_secs(6));
    }

    #[test]
    fn one_in_a_thousand_is_slower_than_p999() {
        let samples = (1..=10_000).map(Duration::from_millis);
        let latency = Latency::of(samples.collect()).unwrap();
        assert_eq!((latency.p99, latency.p999), (9_900.0, 9_990.0));
    }
}
