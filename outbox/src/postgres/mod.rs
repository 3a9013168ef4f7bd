//! The store on PostgreSQL 15 and newer: functions called in autocommit, one round trip each.

mod store;
mod attach;
mod commit;
mod tx;
mod columns;
mod one;
mod smooth;
mod label;
mod hold;
mod keep;
mod load;
mod claim;
mod extend;
mod measure;
mod sweep;
mod migrate;
mod admin;
mod listener;
mod connections;
mod error;

pub use store::{PgConfig, PgStore};
