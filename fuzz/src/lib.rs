//! What reads input of strangers and operators, as functions that a fuzzer calls.
//!
//! Each takes any bytes and must return: in time, within its memory, without a panic. What they
//! assert beyond that stands in them. The corpus beside this has inputs of each kind, which the tests
//! run.

mod envelope;
mod operator;
mod parts;
mod urls;

/// A target's name, and what it does with any bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target. A folder of the corpus has the name of each.
pub const TARGETS: &[Target] = &[
    ("envelope", envelope::envelope),
    ("amqp", sagabus_rabbitmq::fuzzing::delivery),
    ("kafka", sagabus_kafka::fuzzing::record),
    ("saga", envelope::saga),
    ("filters", operator::filters),
    ("cron", operator::cron),
    ("configuration", operator::configuration),
    ("urls", urls::urls),
];
