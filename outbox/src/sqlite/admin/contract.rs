//! Where each call of an operator goes.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sagabus_core::admin::{
    About, Accounts, AuditEntry, AuditFilter, Change, Counts, DeadLetterFilter, DeadLetterGroup,
    DestinationOverview, HistoryOf, InboxFilter, InstanceFilter, InstanceOverview, InstanceShape,
    Page, RowFilter, SentFilter, StoreAdmin, StoredDeadLetter, StoredEndpoint, StoredHistory,
    StoredHost, StoredRow, StoredSent, TakenOver, Tally, Vitals, WaitingShape,
};
use sagabus_core::store::Instance;
use sagabus_core::unit_of_work::Label;
use sagabus_core::{InstanceId, StoreError};

use super::super::store::SqliteStore;
use super::{
    accounts, change, dead_letters, inbox, instances, outgoing, running, sent, shapes, vitals,
};

impl StoreAdmin for SqliteStore {
    fn about(&self) -> BoxFuture<'_, Result<About, StoreError>> {
        running::about(self).boxed()
    }

    fn counts(&self) -> BoxFuture<'_, Result<Counts, StoreError>> {
        running::counts(self).boxed()
    }

    fn vitals(&self) -> BoxFuture<'_, Result<Vitals, StoreError>> {
        vitals::vitals(self).boxed()
    }

    fn find_dead_letters<'a>(
        &'a self,
        filter: &'a DeadLetterFilter,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<StoredDeadLetter>, StoreError>> {
        dead_letters::list(self, filter, page).boxed()
    }

    fn dead_letter_groups<'a>(
        &'a self,
        filter: &'a DeadLetterFilter,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<DeadLetterGroup>, StoreError>> {
        dead_letters::groups(self, filter, limit).boxed()
    }

    fn count_dead_letters<'a>(
        &'a self,
        filter: &'a DeadLetterFilter,
    ) -> BoxFuture<'a, Result<Tally, StoreError>> {
        dead_letters::count(self, filter).boxed()
    }

    fn rows<'a>(
        &'a self,
        filter: &'a RowFilter,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<StoredRow>, StoreError>> {
        outgoing::list(self, filter, page).boxed()
    }

    fn count_rows<'a>(&'a self, filter: &'a RowFilter) -> BoxFuture<'a, Result<Tally, StoreError>> {
        outgoing::count(self, filter).boxed()
    }

    fn sent<'a>(
        &'a self,
        filter: &'a SentFilter,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<StoredSent>, StoreError>> {
        sent::list(self, filter, page).boxed()
    }

    fn count_sent<'a>(
        &'a self,
        filter: &'a SentFilter,
    ) -> BoxFuture<'a, Result<Tally, StoreError>> {
        sent::count(self, filter).boxed()
    }

    fn destinations(&self) -> BoxFuture<'_, Result<Vec<DestinationOverview>, StoreError>> {
        outgoing::destinations(self).boxed()
    }

    fn hosts(&self) -> BoxFuture<'_, Result<Vec<StoredHost>, StoreError>> {
        running::hosts(self).boxed()
    }

    fn endpoints(&self) -> BoxFuture<'_, Result<Vec<StoredEndpoint>, StoreError>> {
        running::endpoints(self).boxed()
    }

    fn instance<'a>(
        &'a self,
        id: &'a InstanceId,
    ) -> BoxFuture<'a, Result<Option<Instance>, StoreError>> {
        instances::instance(self, id).boxed()
    }

    fn labels<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<Vec<Label>, StoreError>> {
        instances::labels(self, id).boxed()
    }

    fn instances<'a>(
        &'a self,
        filter: &'a InstanceFilter,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<InstanceOverview>, StoreError>> {
        instances::instances(self, filter, limit).boxed()
    }

    fn instance_shapes(&self) -> BoxFuture<'_, Result<Vec<InstanceShape>, StoreError>> {
        shapes::instances(self).boxed()
    }

    fn waiting_shapes(&self) -> BoxFuture<'_, Result<Vec<WaitingShape>, StoreError>> {
        shapes::waiting(self).boxed()
    }

    fn history<'a>(
        &'a self,
        of: &'a HistoryOf,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<StoredHistory>, StoreError>> {
        running::history(self, of, page).boxed()
    }

    fn inbox<'a>(
        &'a self,
        filter: &'a InboxFilter,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<TakenOver>, StoreError>> {
        inbox::inbox(self, filter, limit).boxed()
    }

    fn accounts<'a>(
        &'a self,
        without: &'a [String],
    ) -> BoxFuture<'a, Result<Accounts, StoreError>> {
        accounts::accounts(self, without).boxed()
    }

    fn audit<'a>(
        &'a self,
        filter: &'a AuditFilter,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<AuditEntry>, StoreError>> {
        running::audit(self, filter, page).boxed()
    }

    fn change<'a>(&'a self, change: &'a Change) -> BoxFuture<'a, Result<Vec<i64>, StoreError>> {
        change::change(self, change).boxed()
    }
}
