//! A store behind a role: whatever function of this crate asks it, it answers what the role may see
//! and changes what the role may change.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sagabus_core::admin::{
    About, Accounts, Action, AuditEntry, AuditFilter, Bodies, Change, Counts, DeadLetterFilter,
    DeadLetterGroup, DestinationOverview, HistoryOf, InboxFilter, InstanceFilter, InstanceOverview,
    InstanceShape, NewOperation, Operations, Page, Redriven, RowFilter, SentFilter, StoreAdmin,
    StoredDeadLetter, StoredEndpoint, StoredHistory, StoredHost, StoredOperation, StoredRow,
    StoredSent, TakenOver, Tally, Told, Vitals, WaitingShape, Wheel,
};
use sagabus_core::envelope::Envelope;
use sagabus_core::store::Instance;
use sagabus_core::unit_of_work::Label;
use sagabus_core::{InstanceId, StoreError};
use serde_json::Value;

use crate::role::Role;
use crate::sight::Sight;

/// How audit entries of edited dead letters are called.
const EDITED: &str = "edit_dead_letter";

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// A store as a role may use it.
pub struct Guarded<'a> {
    admin: &'a dyn StoreAdmin,
    role: Role,
    sight: Sight,
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
        Self {
            admin,
            role,
            sight: Sight::default(),
        }
    }

    /// Opens and shows bodies as who may see them wants them seen.
    #[must_use]
    pub fn seeing(self, sight: Sight) -> Self {
        Self { sight, ..self }
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

    /// Says whether bodies of a page are made fit to be shown.
    fn shows(&self, page: Page) -> bool {
        let is_raw = page.bodies == Bodies::AsStored && self.role >= Role::Operator;
        page.body_bytes_max > 0 && !is_raw
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

    /// Makes the bodies of a page fit to be shown.
    async fn show<T>(
        &self,
        page: Page,
        found: &mut [T],
        body_of: fn(&mut T) -> (&mut Envelope, &mut u64),
    ) -> Result<(), StoreError> {
        if !self.shows(page) || found.is_empty() {
            return Ok(());
        }
        let redactions = self.sight.redactions(self.admin).await?;
        for one in found {
            let (envelope, body_bytes) = body_of(one);
            self.sight.show(&redactions, envelope, body_bytes);
        }
        Ok(())
    }

    /// Seals a message that a tool makes, where it has keys: hosts may take no other.
    fn sealed(&self, change: &Change) -> Result<Option<Change>, StoreError> {
        let (Some(keys), Action::SendMessage { endpoint, envelope }) =
            (&self.sight.keyring, &change.action)
        else {
            return Ok(None);
        };
        let mut envelope = envelope.clone();
        let sealed = keys.seal(&mut envelope);
        sealed.map_err(|error| StoreError::Refused(error.into()))?;
        let endpoint = endpoint.clone();
        Ok(Some(Change {
            action: Action::SendMessage { endpoint, envelope },
            ..change.clone()
        }))
    }

    /// Masks what the audit keeps of bodies.
    async fn mask_edits(&self, entries: &mut [AuditEntry]) -> Result<(), StoreError> {
        let is_edit = |one: &AuditEntry| one.action == EDITED;
        if !entries.iter().any(is_edit) {
            return Ok(());
        }
        let redactions = self.sight.redactions(self.admin).await?;
        for one in entries {
            if is_edit(one) {
                let masked = self
                    .sight
                    .mask_edit(self.admin, &redactions, &mut one.detail);
                masked.await?;
            }
        }
        Ok(())
    }
}

fn body_of_dead_letter(one: &mut StoredDeadLetter) -> (&mut Envelope, &mut u64) {
    (&mut one.envelope, &mut one.body_bytes)
}

fn body_of_row(one: &mut StoredRow) -> (&mut Envelope, &mut u64) {
    (&mut one.envelope, &mut one.body_bytes)
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
        let page = self.page(page);
        async move {
            let mut found = self.admin.find_dead_letters(filter, page).await?;
            self.show(page, &mut found, body_of_dead_letter).await?;
            Ok(found)
        }
        .boxed()
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
        let page = self.page(page);
        async move {
            let mut found = self.admin.rows(filter, page).await?;
            self.show(page, &mut found, body_of_row).await?;
            Ok(found)
        }
        .boxed()
    }

    fn count_rows<'b>(&'b self, filter: &'b RowFilter) -> Answer<'b, Tally> {
        self.admin.count_rows(filter)
    }

    fn sent<'b>(&'b self, filter: &'b SentFilter, page: Page) -> Answer<'b, Vec<StoredSent>> {
        self.admin.sent(filter, page)
    }

    fn count_sent<'b>(&'b self, filter: &'b SentFilter) -> Answer<'b, Tally> {
        self.admin.count_sent(filter)
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

    fn audit<'b>(&'b self, filter: &'b AuditFilter, page: Page) -> Answer<'b, Vec<AuditEntry>> {
        async move {
            let mut entries = self.admin.audit(filter, page).await?;
            if !self.sees_bodies() {
                return Ok(entries.into_iter().map(without_bodies).collect());
            }
            self.mask_edits(&mut entries).await?;
            Ok(entries)
        }
        .boxed()
    }

    fn change<'b>(&'b self, change: &'b Change) -> Answer<'b, Vec<i64>> {
        let action = &change.action;
        let what = action.as_str().replace('_', " ");
        match self.role.demand(Role::needed(action), &what) {
            Ok(()) => match self.sealed(change) {
                Ok(None) => self.admin.change(change),
                Ok(Some(sealed)) => async move { self.admin.change(&sealed).await }.boxed(),
                Err(error) => futures_util::future::err(error).boxed(),
            },
            Err(error) => futures_util::future::err(error).boxed(),
        }
    }
}

impl Operations for Guarded<'_> {
    fn begin_operation<'b>(&'b self, new: &'b NewOperation) -> Answer<'b, Option<StoredOperation>> {
        let what = new.verb.action().replace('_', " ");
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
