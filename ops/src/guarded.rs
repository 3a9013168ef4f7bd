//! A store behind a role: whatever function of this crate asks it, it answers what the role may see
//! and changes what the role may change.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sagabus_core::admin::{
    About, Accounts, AuditEntry, Change, Counts, DeadLetterFilter, DeadLetterGroup,
    DestinationOverview, HistoryOf, InboxFilter, InstanceFilter, InstanceOverview, InstanceShape,
    NewOperation, Operations, Page, Redriven, RowFilter, StoreAdmin, StoredDeadLetter,
    StoredEndpoint, StoredHistory, StoredHost, StoredOperation, StoredRow, TakenOver, Tally, Told,
    Vitals, WaitingShape, Wheel,
};
use sagabus_core::store::Instance;
use sagabus_core::unit_of_work::Label;
use sagabus_core::{InstanceId, StoreError};
use serde_json::Value;

use crate::role::Role;

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// A store as a role may use it.
pub struct Guarded<'a> {
    admin: &'a dyn StoreAdmin,
    role: Role,
}

impl fmt::Debug for Guarded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl<'a> Guarded<'a> {
    /// Puts a role before a store.
    pub fn new(admin: &'a dyn StoreAdmin, role: Role) -> Self {
        Self { admin, role }
    }

    fn sees_bodies(&self) -> bool {
        self.role >= Role::BodyReader
    }

    /// Leaves bodies out of a page where the role does not see them.
    fn page(&self, page: Page) -> Page {
        match self.sees_bodies() {
            true => page,
            false => page.without_bodies(),
        }
    }

    /// Answers what an operator may ask, else refuses.
    fn as_operator<'b, T: Send + 'b>(
        &'b self,
        what: &str,
        answer: impl FnOnce() -> Answer<'b, T>,
    ) -> Answer<'b, T> {
        match self.role.demand(Role::Operator, what) {
            Ok(()) => answer(),
            Err(error) => futures_util::future::err(error).boxed(),
        }
    }
}

/// Leaves out of an audit entry what messages and instances held.
fn without_bodies(mut entry: AuditEntry) -> AuditEntry {
    let all = entry.detail.as_array_mut().into_iter().flatten();
    for one in all.filter_map(Value::as_object_mut) {
        one.remove("before");
        one.remove("after");
    }
    entry
}

impl StoreAdmin for Guarded<'_> {
    fn about(&self) -> Answer<'_, About> {
        self.admin.about()
    }

    fn counts(&self) -> Answer<'_, Counts> {
        self.admin.counts()
    }

    fn vitals(&self) -> Answer<'_, Vitals> {
        self.admin.vitals()
    }

    fn find_dead_letters<'b>(
        &'b self,
        filter: &'b DeadLetterFilter,
        page: Page,
    ) -> Answer<'b, Vec<StoredDeadLetter>> {
        self.admin.find_dead_letters(filter, self.page(page))
    }

    fn dead_letter_groups<'b>(
        &'b self,
        filter: &'b DeadLetterFilter,
        limit: u32,
    ) -> Answer<'b, Vec<DeadLetterGroup>> {
        self.admin.dead_letter_groups(filter, limit)
    }

    fn count_dead_letters<'b>(&'b self, filter: &'b DeadLetterFilter) -> Answer<'b, Tally> {
        self.admin.count_dead_letters(filter)
    }

    fn rows<'b>(&'b self, filter: &'b RowFilter, page: Page) -> Answer<'b, Vec<StoredRow>> {
        self.admin.rows(filter, self.page(page))
    }

    fn destinations(&self) -> Answer<'_, Vec<DestinationOverview>> {
        self.admin.destinations()
    }

    fn hosts(&self) -> Answer<'_, Vec<StoredHost>> {
        self.admin.hosts()
    }

    fn endpoints(&self) -> Answer<'_, Vec<StoredEndpoint>> {
        self.admin.endpoints()
    }

    fn instance<'b>(&'b self, id: &'b InstanceId) -> Answer<'b, Option<Instance>> {
        let hide = |one: Instance| Instance {
            data: Bytes::new(),
            ..one
        };
        let sees = self.sees_bodies();
        let answer = self.admin.instance(id);
        async move {
            let found = answer.await?;
            Ok(if sees { found } else { found.map(hide) })
        }
        .boxed()
    }

    fn labels<'b>(&'b self, id: &'b InstanceId) -> Answer<'b, Vec<Label>> {
        self.admin.labels(id)
    }

    fn instances<'b>(
        &'b self,
        filter: &'b InstanceFilter,
        limit: u32,
    ) -> Answer<'b, Vec<InstanceOverview>> {
        self.admin.instances(filter, limit)
    }

    fn instance_shapes(&self) -> Answer<'_, Vec<InstanceShape>> {
        self.admin.instance_shapes()
    }

    fn waiting_shapes(&self) -> Answer<'_, Vec<WaitingShape>> {
        self.admin.waiting_shapes()
    }

    fn history<'b>(&'b self, of: &'b HistoryOf, page: Page) -> Answer<'b, Vec<StoredHistory>> {
        self.admin.history(of, page)
    }

    fn inbox<'b>(&'b self, filter: &'b InboxFilter, limit: u32) -> Answer<'b, Vec<TakenOver>> {
        self.admin.inbox(filter, limit)
    }

    fn accounts<'b>(&'b self, without: &'b [String]) -> Answer<'b, Accounts> {
        self.admin.accounts(without)
    }

    fn audit(&self, page: Page) -> Answer<'_, Vec<AuditEntry>> {
        let sees = self.sees_bodies();
        let answer = self.admin.audit(page);
        async move {
            let entries = answer.await?;
            Ok(match sees {
                true => entries,
                false => entries.into_iter().map(without_bodies).collect(),
            })
        }
        .boxed()
    }

    fn change<'b>(&'b self, change: &'b Change) -> Answer<'b, Vec<i64>> {
        let action = &change.action;
        let what = action.as_str().replace('_', " ");
        match self.role.demand(Role::needed(action), &what) {
            Ok(()) => self.admin.change(change),
            Err(error) => futures_util::future::err(error).boxed(),
        }
    }
}

impl Operations for Guarded<'_> {
    fn begin_operation<'b>(&'b self, new: &'b NewOperation) -> Answer<'b, Option<StoredOperation>> {
        let what = format!("{} dead letters", new.verb.as_str());
        self.as_operator(&what, || self.admin.begin_operation(new))
    }

    fn operations(&self, id: Option<i64>, page: Page) -> Answer<'_, Vec<StoredOperation>> {
        self.admin.operations(id, page)
    }

    fn take_wheel<'b>(
        &'b self,
        id: i64,
        driver: &'b str,
        lease: Duration,
    ) -> Answer<'b, Option<StoredOperation>> {
        self.as_operator("drive an operation", || {
            self.admin.take_wheel(id, driver, lease)
        })
    }

    fn step(&self, wheel: Wheel, count: u32) -> Answer<'_, Option<StoredOperation>> {
        self.as_operator("drive an operation", || self.admin.step(wheel, count))
    }

    fn tell<'b>(&'b self, told: &'b Told) -> Answer<'b, Option<StoredOperation>> {
        let what = told.command.action().replace('_', " ");
        self.as_operator(&what, || self.admin.tell(told))
    }

    fn redriven(&self, id: i64) -> Answer<'_, Redriven> {
        self.admin.redriven(id)
    }
}
