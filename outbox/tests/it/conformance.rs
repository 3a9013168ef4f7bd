//! Every store keeps the same contract: one line for each.

#[cfg(feature = "sqlite")]
mod sqlite {
    use sagabus_outbox::SqliteStore;
    use sagabus_testkit::store::StoreUnderTest;

    use crate::sqlite_support::Folder;

    /// A fresh file, and a second store on it: another process, as far as SQLite can tell.
    async fn fresh() -> Option<StoreUnderTest> {
        let folder = Folder::new();
        let store = SqliteStore::open(folder.file()).await.unwrap();
        store.migrate().await.unwrap();
        let peer = SqliteStore::open(folder.file()).await.unwrap();
        Some(StoreUnderTest::new(store).with_peer(peer).keeping(folder))
    }

    sagabus_testkit::store_suite!(fresh);

    mod as_the_bus {
        use super::fresh;

        sagabus_testkit::bus_suite!(fresh);
    }

    mod as_a_transport {
        use std::sync::Arc;

        use sagabus_testkit::transport::{DatabaseTransport, Skippable, TransportUnderTest};

        use super::fresh;

        async fn transport() -> Option<TransportUnderTest> {
            let test = fresh().await?;
            let ours = DatabaseTransport::new(Arc::clone(&test.store));
            let theirs = DatabaseTransport::new(Arc::clone(&test.peer));
            let transport = TransportUnderTest::new(ours, theirs).keeping(test);
            Some(
                transport
                    .lacking([Skippable::TellsStoresApart])
                    .reaching(10_000),
            )
        }

        sagabus_testkit::transport_suite!(
            transport,
            may_skip: [TellsStoresApart, CutsConnections, Nacks, CutsBeforeConfirm]
        );
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sagabus_testkit::store::StoreUnderTest;

    use crate::postgres_support::Database;

    /// A fresh database, and a second store on it with connections of its own.
    async fn fresh() -> Option<StoreUnderTest> {
        let (database, store) = Database::migrated().await?;
        let peer = database.store().await;
        Some(StoreUnderTest::new(store).with_peer(peer).keeping(database))
    }

    sagabus_testkit::store_suite!(fresh);

    mod as_the_bus {
        use super::fresh;

        sagabus_testkit::bus_suite!(fresh);
    }

    mod as_a_transport {
        use std::sync::Arc;

        use sagabus_testkit::transport::{DatabaseTransport, Skippable, TransportUnderTest};

        use super::fresh;

        async fn transport() -> Option<TransportUnderTest> {
            let test = fresh().await?;
            let ours = DatabaseTransport::new(Arc::clone(&test.store));
            let theirs = DatabaseTransport::new(Arc::clone(&test.peer));
            let transport = TransportUnderTest::new(ours, theirs).keeping(test);
            Some(
                transport
                    .lacking([Skippable::TellsStoresApart])
                    .reaching(10_000),
            )
        }

        sagabus_testkit::transport_suite!(
            transport,
            may_skip: [TellsStoresApart, CutsConnections, Nacks, CutsBeforeConfirm]
        );
    }
}
