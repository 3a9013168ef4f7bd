//! The stores against real databases.
#![allow(
    clippy::unwrap_used,
    reason = "a step that fails is a test that fails, also in what tests share"
)]

#[cfg(feature = "sqlite")]
mod sqlite_support;
#[cfg(feature = "sqlite")]
mod sqlite_commit;
#[cfg(feature = "sqlite")]
mod sqlite_order;
#[cfg(feature = "sqlite")]
mod sqlite_claim;
#[cfg(feature = "sqlite")]
mod sqlite_setup;
#[cfg(feature = "sqlite")]
mod sqlite_cancel;
#[cfg(feature = "sqlite")]
mod sqlite_tx;
#[cfg(feature = "postgres")]
mod postgres_support;
#[cfg(feature = "postgres")]
mod postgres_units;
#[cfg(feature = "postgres")]
mod postgres_races;
#[cfg(feature = "postgres")]
mod postgres_claim;
#[cfg(feature = "postgres")]
mod postgres_lines;
#[cfg(feature = "postgres")]
mod postgres_plans;
#[cfg(feature = "postgres")]
mod postgres_explain;
#[cfg(feature = "postgres")]
mod postgres_reads;
#[cfg(feature = "postgres")]
mod postgres_cancel;
#[cfg(feature = "postgres")]
mod postgres_values;
#[cfg(feature = "postgres")]
mod postgres_listen;
#[cfg(feature = "postgres")]
mod postgres_setup;
#[cfg(feature = "postgres")]
mod postgres_vitals;
#[cfg(feature = "postgres")]
mod postgres_tx;
#[cfg(all(feature = "sqlite", feature = "postgres"))]
mod overloaded;
mod conformance;
