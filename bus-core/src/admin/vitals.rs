//! How the database itself is doing.

use std::time::Duration;

/// How the database itself is doing, as far as its engine can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Bytes that it takes on disk, or in memory.
    pub bytes: u64,
    /// Bytes of that which are free to be used again; SQLite only.
    pub free_bytes: Option<u64>,
    /// Places in line that dead letters hold: keys whose later messages wait.
    pub held: u64,
    /// How long the longest transaction is open, ours or another's; PostgreSQL only.
    pub oldest_transaction: Option<Duration>,
    /// Transactions since the oldest that anything still looks back to: nothing that went since can
    /// be cleaned away; PostgreSQL only.
    pub horizon_transactions: Option<u64>,
    /// Tables with many dead rows, the most first; PostgreSQL only.
    pub tables: Vec<TableVitals>,
}

/// How one table is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableVitals {
    /// Its name.
    pub name: String,
    /// Its rows, as the engine estimates them.
    pub rows: u64,
    /// Rows that went and were not cleaned away yet.
    pub dead_rows: u64,
}
