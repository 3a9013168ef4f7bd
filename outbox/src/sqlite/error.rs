//! What SQLite's result codes mean to the engine.

use sagabus_core::StoreError;

/// The file is locked by somebody else for longer than the busy time-out.
const BUSY: i32 = 5;
/// A table is locked by another statement of this process.
const LOCKED: i32 = 6;
/// The file may not be written.
const READONLY: i32 = 8;
/// Reading or writing the disk failed.
const IOERR: i32 = 10;
/// The disk is full.
const FULL: i32 = 13;
/// The file cannot be opened.
const CANTOPEN: i32 = 14;
/// A value is larger than SQLite's limit.
const TOOBIG: i32 = 18;
/// A constraint does not hold.
const CONSTRAINT: i32 = 19;
/// A value is not of its column's type.
const MISMATCH: i32 = 20;

/// Sorts an error of a call that cannot have committed anything.
pub(crate) fn store_error(error: sqlx::Error) -> StoreError {
    match primary_code(&error) {
        Some(BUSY | LOCKED) => StoreError::Busy(error.into()),
        Some(CONSTRAINT | TOOBIG | MISMATCH) => StoreError::Refused(error.into()),
        Some(READONLY | IOERR | FULL | CANTOPEN) => StoreError::Unavailable(error.into()),
        Some(_) => StoreError::Other(error.into()),
        None => sort_driver_error(error),
    }
}

/// Sorts an error of a call that contained `COMMIT`.
///
/// A failed sync may leave a whole commit in the log, which a later recovery would honour: only
/// asking again tells. Everything else fails before the commit record is written.
pub(crate) fn commit_error(error: sqlx::Error) -> StoreError {
    match primary_code(&error) {
        Some(IOERR) => StoreError::Unknown(error.into()),
        _ if matches!(error, sqlx::Error::WorkerCrashed) => StoreError::Unknown(error.into()),
        _ => store_error(error),
    }
}

/// Sorts what the driver itself reports.
fn sort_driver_error(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Encode(_) => StoreError::Refused(error.into()),
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => StoreError::Unavailable(error.into()),
        _ => StoreError::Other(error.into()),
    }
}

/// Returns the result code without its extension.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

#[cfg(test)]
mod tests {
    use sagabus_core::InstanceId;
    use sagabus_core::store::{Group, Store, StoreAdmin};
    use sagabus_core::unit_of_work::{InstanceChange, InstanceStatus, UnitOfWork};
    use sqlx::Executor;

    use super::*;
    use crate::SqliteStore;

    fn creates(key: &str, bytes: usize) -> Group {
        let change = InstanceChange {
            id: InstanceId {
                kind: "order".into(),
                key: key.into(),
            },
            expected: 0,
            status: InstanceStatus::Running,
            state: None,
            schema_version: 1,
            data: vec![7; bytes].into(),
            timers: Default::default(),
            disarmed: Vec::new(),
            origin: None,
            labels: None,
        };
        let unit = UnitOfWork {
            instance: Some(change),
            ..UnitOfWork::default()
        };
        Group {
            units: vec![unit],
            ..Group::default()
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_unavailable_and_what_fits_is_written_later() {
        let name = format!("sagabus-{}.db", uuid::Uuid::now_v7());
        let path = std::env::temp_dir().join(name);
        let store = SqliteStore::open(&path).await.unwrap();
        store.migrate().await.unwrap();
        let mut write = store.write().await.unwrap();
        let connection = write.connection().await.unwrap();
        connection
            .execute("pragma max_page_count = 100")
            .await
            .unwrap();
        drop(write);

        let full = store.commit(&creates("big", 4 * 1024 * 1024)).await;
        assert!(matches!(full, Err(StoreError::Unavailable(_))), "{full:?}");
        store.commit(&creates("small", 10)).await.unwrap();
        assert_eq!(store.counts().await.unwrap().running, 1);

        store.close().await;
        drop(store);
        for end in ["", "-wal", "-shm"] {
            let mut file = path.clone().into_os_string();
            file.push(end);
            let _ = std::fs::remove_file(file); // The system cleans its folder itself.
        }
    }
}
