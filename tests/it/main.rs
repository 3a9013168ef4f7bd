//! Cross-crate tests, through the facade as a user sees it.

// What tests share.
#[cfg(feature = "postgres")]
mod databases;
#[cfg(all(unix, feature = "sqlite"))]
mod demo;
#[cfg(all(unix, feature = "sqlite"))]
mod examples;
#[cfg(all(unix, feature = "cli", feature = "sqlite", feature = "postgres"))]
mod own_program;
// What documents promise.
mod feature_table;
mod architecture;
// Runs on both stores.
#[cfg(all(feature = "sqlite", feature = "postgres"))]
mod killed;
#[cfg(all(feature = "sqlite", feature = "postgres"))]
mod outage;
#[cfg(all(unix, feature = "sqlite", feature = "postgres", feature = "kafka"))]
mod kafka;
#[cfg(all(unix, feature = "sqlite", feature = "postgres", feature = "rabbitmq"))]
mod rabbitmq;
// Runs over both brokers.
#[cfg(all(
    unix,
    feature = "sqlite",
    feature = "postgres",
    feature = "rabbitmq",
    feature = "kafka"
))]
mod brokers;
