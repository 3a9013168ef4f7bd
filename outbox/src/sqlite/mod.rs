//! The store on SQLite: one file, one connection that writes, a few that read.

mod store;
mod attach;
mod commit;
mod tx;
mod encode;
mod sections;
mod rows;
mod load;
mod claim;
mod extend;
mod measure;
mod sweep;
mod migrate;
mod admin;
mod writer;
mod clock;
mod error;
#[cfg(test)]
mod plans;

pub use store::{SqliteConfig, SqliteStore};
