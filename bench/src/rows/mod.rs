//! The rows of the table, and what several of them use.

#[cfg(feature = "brokers")]
pub(crate) mod backlog;
pub(crate) mod due;
pub(crate) mod f_ready;
pub(crate) mod failing;
pub(crate) mod growth;
pub(crate) mod h1;
pub(crate) mod h2;
#[cfg(feature = "brokers")]
pub(crate) mod h2_broker;
pub(crate) mod h3;
pub(crate) mod h4;
pub(crate) mod h5;
pub(crate) mod l1;
#[cfg(feature = "brokers")]
pub(crate) mod l1_broker;
pub(crate) mod latency;
pub(crate) mod m1;
#[cfg(feature = "brokers")]
pub(crate) mod m1_backlog;
pub(crate) mod o1;
#[cfg(feature = "brokers")]
pub(crate) mod outage;
#[cfg(feature = "brokers")]
pub(crate) mod peer_latency;
#[cfg(feature = "brokers")]
pub(crate) mod peer_relays;
pub(crate) mod peers;
#[cfg(feature = "brokers")]
pub(crate) mod r3;
#[cfg(feature = "brokers")]
pub(crate) mod relay;
pub(crate) mod run;
pub(crate) mod s1;
pub(crate) mod serving;
pub(crate) mod share;
pub(crate) mod sleeper;
pub(crate) mod steady;

use anyhow::Result;
use futures_util::future::BoxFuture;

use crate::brokers::Broker;
use crate::ratio::{Must, Promise};
use crate::report::{Line, median};
use crate::row::{Bench, Found, Row, Run};
use crate::services::Backend;

type Measure = for<'a> fn(&'a Bench, Backend) -> BoxFuture<'a, Result<Found>>;

/// Name, what it is about, and how it is measured; on both databases, in this order.
const ROWS: &[(&str, &str, Measure)] = &[
    (
        "H1",
        "a handler with a statement of its own, in eight transactions at once",
        h1::with_user_sql,
    ),
    (
        "H1'",
        "a handler without SQL, one message after the other",
        h1::one_in_hand,
    ),
    (
        "H1'-8",
        "a handler without SQL, eight at once",
        h1::eight_in_hand,
    ),
    (
        "H2",
        "a state machine in groups, from a broker to a broker",
        h2::from_broker,
    ),
    (
        "H2-own",
        "a state machine in groups, over rows of this database",
        h2::over_own_rows,
    ),
    (
        "H1-history",
        "H1 without history, beside H1 with it",
        h1::without_history,
    ),
    (
        "H2-history",
        "H2 without history, beside H2 with it",
        h2::without_history,
    ),
    (
        "S1",
        "one transition of a machine, from stored data to stored data",
        s1::transition,
    ),
    (
        "S1-H2",
        "the part of H2's processor time that is spent in the machine",
        share::of_h2,
    ),
    (
        "F-ready",
        "what stands for a flow's step: a row for an instance that sends itself the next",
        f_ready::steps,
    ),
    ("H3-1", "H2 on one instance", h3::one),
    ("H3-10", "H2 on ten instances", h3::ten),
    (
        "H3-zipf",
        "H2 on instances of which the first get most",
        h3::zipf,
    ),
    (
        "H5-256",
        "H2 on a million instances of 256 bytes, beside a thousand",
        h5::small,
    ),
    (
        "H5-4k",
        "H2 on a million instances of 4 KiB, beside a thousand",
        h5::large,
    ),
    (
        "H5-4k-dense",
        "the same with data that hardly gets shorter when compressed",
        h5::dense,
    ),
    (
        "D1",
        "how late 1,000 messages/s are that fall due, beside a million for later",
        due::beside_many,
    ),
    (
        "H4",
        "an inbox that knows a million messages, beside an empty one",
        h4::growth,
    ),
    (
        "L1-100",
        "from send to handler at 100 messages/s, commit included",
        l1::at_100,
    ),
    (
        "L1-1000",
        "from send to handler at 1,000 messages/s, commit included",
        l1::at_1000,
    ),
    (
        "W1",
        "from another host's send to the handler",
        latency::between_hosts,
    ),
    (
        "W2",
        "from a stranger's transaction to the handler",
        latency::strangers,
    ),
    (
        "C1",
        "claims beside a long line behind one blocked key",
        latency::long_line,
    ),
    ("M1", "memory of an idle host", m1::idle_host),
    (
        "P1",
        "healthy messages at half of peak load while one in a hundred always fails",
        failing::one_in_a_hundred,
    ),
    (
        "O1",
        "100,000 dead letters: looked through, redriven at a rate, paused, all redriven",
        o1::incident,
    ),
];

/// The same over a broker beside PostgreSQL.
#[cfg(not(feature = "brokers"))]
const OVER_BROKERS: &[(&str, &str, Broker, Measure)] = &[];
/// The same over a broker beside PostgreSQL.
#[cfg(feature = "brokers")]
const OVER_BROKERS: &[(&str, &str, Broker, Measure)] = &[
    (
        "R1",
        "what waits in the outbox, to a quorum queue",
        Broker::RabbitMq,
        relay::to_rabbitmq,
    ),
    (
        "R1-locks",
        "the same, beside a relay by hand that keeps its transaction open",
        Broker::RabbitMq,
        relay::beside_locks,
    ),
    (
        "R2",
        "what waits in the outbox, to a topic",
        Broker::Kafka,
        relay::to_kafka,
    ),
    (
        "H2",
        "a state machine in groups, from a quorum queue to another",
        Broker::RabbitMq,
        h2_broker::over_rabbitmq,
    ),
    (
        "H2",
        "a state machine in groups, from topics to topics",
        Broker::Kafka,
        h2_broker::over_kafka,
    ),
    (
        "L1-1000",
        "from send through a quorum queue at 1,000 messages/s, commit included",
        Broker::RabbitMq,
        l1_broker::over_rabbitmq,
    ),
    (
        "L1-1000",
        "from send through a topic at 1,000 messages/s, commit included",
        Broker::Kafka,
        l1_broker::over_kafka,
    ),
    (
        "R3-50",
        "a relay at half of its peak: from commit to confirm",
        Broker::RabbitMq,
        r3::at_half,
    ),
    (
        "R3-80",
        "a relay at four fifths of its peak: from commit to confirm",
        Broker::RabbitMq,
        r3::at_four_fifths,
    ),
    (
        "R4",
        "a backlog that is kept up: very many rows that wait, beside a thousand",
        Broker::RabbitMq,
        backlog::growth,
    ),
    (
        "R5-held",
        "the same while an old transaction holds back every vacuum, beside none",
        Broker::RabbitMq,
        backlog::held,
    ),
    (
        "R5-dead",
        "a backlog for fifty destinations, beside a dead one with a longer one",
        Broker::RabbitMq,
        backlog::dead,
    ),
    (
        "R6",
        "what waits for a thousand exchanges, beside one",
        Broker::RabbitMq,
        relay::many_destinations,
    ),
    (
        "M1-down",
        "memory of a host that sends while its broker is down",
        Broker::RabbitMq,
        outage::memory,
    ),
    (
        "M1-backlog",
        "memory of a relay beside very many rows of 1 KiB",
        Broker::RabbitMq,
        m1_backlog::memory,
    ),
];

/// Returns every row there is.
pub(crate) fn every() -> Vec<Row> {
    let mut rows = all();
    rows.extend(peers::rows());
    rows.extend(growth::curves());
    rows
}

/// Returns what is about ours alone and about the program by hand, in the order in which it runs.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    for backend in [Backend::Postgres, Backend::Sqlite] {
        rows.extend(ROWS.iter().map(|&(name, about, run)| Row {
            name,
            about,
            backend,
            broker: None,
            peer: None,
            run,
        }));
    }
    // A handler's transaction holds SQLite's only writer: nobody else writes there meanwhile.
    rows.push(Row {
        name: "T1",
        about: "everybody else while a handler sleeps in its transaction",
        backend: Backend::Postgres,
        broker: None,
        peer: None,
        run: sleeper::others,
    });
    // SQLite has no autovacuum, and its file no rows that it does not use again.
    rows.push(Row {
        name: "STEADY",
        about: "H2 at four fifths of its peak, for minutes",
        backend: Backend::Postgres,
        broker: None,
        peer: None,
        run: steady::at_four_fifths,
    });
    // Several processes share a file of SQLite less well than a server.
    let scale: [(_, _, Measure); 2] = [
        (
            "SCALE-4",
            "four processes on the rows of one database, beside two",
            serving::four_beside_two,
        ),
        (
            "SCALE-8",
            "eight processes on the rows of one database, beside two",
            serving::eight_beside_two,
        ),
    ];
    rows.extend(scale.map(|(name, about, run)| Row {
        name,
        about,
        backend: Backend::Postgres,
        broker: None,
        peer: None,
        run,
    }));
    let over_brokers = OVER_BROKERS.iter();
    rows.extend(over_brokers.map(|&(name, about, broker, run)| Row {
        name,
        about,
        backend: Backend::Postgres,
        broker: Some(broker),
        peer: None,
        run,
    }));
    rows
}

/// What rows promise together: groups are worth their while.
pub(crate) fn promises(lines: &[Line]) -> Vec<Promise> {
    let rate = |row: &str| {
        let is_meant = |line: &&Line| line.row == row && line.on == Backend::Postgres.name();
        let line = lines.iter().find(is_meant)?;
        let is_correct = line.found.faults.is_empty();
        let runs = line.found.runs.get("ours").filter(|_| is_correct)?;
        median(runs, |run: &Run| Some(run.rate()))
    };
    let both = rate("H2").zip(rate("H1"));
    let promise = both.map(|(grouped, single)| {
        Promise::new("our H2 / our H1", grouped / single, Must::AtLeast(4.0))
    });
    promise.into_iter().collect()
}
