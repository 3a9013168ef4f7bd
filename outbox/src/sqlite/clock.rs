//! The database's time: the only clock that decides anything.

use sagabus_core::{StoreError, Timestamp};

use super::error::store_error;
use super::store::SqliteStore;

/// The time of the statement in microseconds since 1970. SQLite counts milliseconds, and evaluates
/// it once per statement.
macro_rules! now {
    () => {
        "cast(unixepoch('subsec') * 1000000 as integer)"
    };
}

pub(crate) use now;

/// How long a row waits that has an older row of its key before it: a fallback, because whoever
/// removes the older one pulls it forward. 60 s, in microseconds.
macro_rules! deferral {
    () => {
        "60000000"
    };
}

pub(crate) use deferral;

/// When a stub is available, which holds the place of a dead letter: the last microsecond of the
/// year 9999.
macro_rules! never {
    () => {
        "253402300799999999"
    };
}

pub(crate) use never;

const NOW: &str = concat!("select ", now!());

/// Reads the time.
pub(super) async fn read_now(store: &SqliteStore) -> Result<Timestamp, StoreError> {
    let reading = sqlx::query_scalar(NOW).fetch_one(store.reader()).await;
    reading.map(Timestamp::from_micros).map_err(store_error)
}
