//! The door for a handler's own rows, as `Tx` is on a database: they commit with everything else
//! that the handler wants, or not at all.

use std::any::Any;

use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::handler::{Extract, Need};
use sagabus_core::store::{CommitReport, Group, OpenTransaction};
use sagabus_core::{Ctx, HandlerError, StoreError};
use tokio::sync::OwnedMutexGuard;

use crate::guard::Guard;
use crate::store::SimStore;
use crate::world::Entry;

/// A transaction for a handler's own rows.
pub(crate) struct SimTx {
    store: SimStore,
    slot: OwnedMutexGuard<Option<Box<dyn OpenTransaction>>>,
}

impl SimTx {
    /// Writes a row of the ledger; begins the transaction at first use.
    pub(crate) fn write(&mut self, entry: Entry) -> Result<(), HandlerError> {
        let world = &self.store.link.world;
        if world.is_off(Guard::OwnRows) {
            world.lock().ledger.push(entry);
            return Ok(());
        }
        let open = self.slot.get_or_insert_with(|| {
            Box::new(Open {
                store: self.store.clone(),
                rows: Vec::new(),
            })
        });
        let open = (&mut **open as &mut dyn Any).downcast_mut::<Open>();
        let open = open.ok_or_else(|| HandlerError::new("the transaction of another store"))?;
        open.rows.push(entry);
        Ok(())
    }
}

impl Extract for SimTx {
    fn needs() -> Vec<Need> {
        vec![Need {
            what: "a transaction of the simulated store".to_owned(),
            remedy: "give the host a simulated store".to_owned(),
            is_met: |given| (given.store as &dyn Any).is::<SimStore>(),
        }]
    }

    fn extract(cx: &Ctx) -> Result<Self, HandlerError> {
        let store = (&**cx.store() as &dyn Any).downcast_ref::<SimStore>();
        let store = store.ok_or_else(|| HandlerError::new("the host's store is another one"))?;
        let slot = cx.transaction().clone().try_lock_owned();
        let slot = slot.map_err(|_| HandlerError::new("a handler has one transaction"))?;
        Ok(Self {
            store: store.clone(),
            slot,
        })
    }
}

struct Open {
    store: SimStore,
    rows: Vec<Entry>,
}

impl OpenTransaction for Open {
    fn commit<'a>(
        self: Box<Self>,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<CommitReport, StoreError>> {
        Box::pin(async move { self.store.commit_with(group, self.rows).await })
    }

    fn rollback(self: Box<Self>) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }
}
