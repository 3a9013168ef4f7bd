//! The contract: what a store answers and changes for people.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::account::Accounts;
use super::audit::{AuditEntry, AuditFilter};
use super::change::{Action, Change};
use super::dead_letter::{DeadLetterFilter, DeadLetterGroup, StoredDeadLetter, Tally};
use super::operation::Operations;
use super::page::{About, Counts, Page};
use super::row::{DestinationOverview, RowFilter, StoredRow};
use super::running::{
    HistoryOf, InboxFilter, InstanceFilter, InstanceOverview, StoredEndpoint, StoredHistory,
    StoredHost, TakenOver,
};
use super::sent::{SentFilter, StoredSent};
use super::shape::{InstanceShape, WaitingShape};
use super::vitals::Vitals;
use crate::error::StoreError;
use crate::id::InstanceId;
use crate::store::Instance;
use crate::unit_of_work::Label;

/// What operators and tests read and change. Separate from [`Store`](crate::Store), which is what
/// the engine needs.
///
/// Every answer is bounded by its page, and every text in it is as the message brought it: whoever
/// shows it escapes it. What a filter's `check` refuses is [`StoreError::Refused`], in a list, a sum
/// and an operation alike. All reading calls may be dropped at any time.
pub trait StoreAdmin: Operations + Send + Sync {
    /// Says which database this is and what its clock says.
    ///
    /// # Errors
    /// [`StoreError::Setup`] with what to do where the schema is missing, in part, or of another
    /// release.
    fn about(&self) -> BoxFuture<'_, Result<About, StoreError>>;

    /// Counts rows.
    fn counts(&self) -> BoxFuture<'_, Result<Counts, StoreError>>;

    /// Says how the database itself is doing. Counts and estimates: for people, not for decisions.
    fn vitals(&self) -> BoxFuture<'_, Result<Vitals, StoreError>>;

    /// Reads dead letters.
    fn find_dead_letters<'a>(
        &'a self,
        filter: &'a DeadLetterFilter,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<StoredDeadLetter>, StoreError>>;

    /// Groups dead letters by endpoint and fingerprint, the largest groups first.
    fn dead_letter_groups<'a>(
        &'a self,
        filter: &'a DeadLetterFilter,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<DeadLetterGroup>, StoreError>>;

    /// Counts the dead letters that a filter lets through.
    fn count_dead_letters<'a>(
        &'a self,
        filter: &'a DeadLetterFilter,
    ) -> BoxFuture<'a, Result<Tally, StoreError>>;

    /// Reads rows of the outbox.
    fn rows<'a>(
        &'a self,
        filter: &'a RowFilter,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<StoredRow>, StoreError>>;

    /// Counts the rows that a filter lets through; its times are when they were written.
    fn count_rows<'a>(&'a self, filter: &'a RowFilter) -> BoxFuture<'a, Result<Tally, StoreError>>;

    /// Reads messages that brokers took and that are kept, where a host declares so
    /// ([`keep_sent`](crate::HostBuilder::keep_sent)). Reads through what is kept.
    fn sent<'a>(
        &'a self,
        filter: &'a SentFilter,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<StoredSent>, StoreError>>;

    /// Counts the kept messages that a filter lets through; its times are when they were sent.
    fn count_sent<'a>(&'a self, filter: &'a SentFilter)
    -> BoxFuture<'a, Result<Tally, StoreError>>;

    /// Sums the outbox up, per destination, in the order of their names.
    fn destinations(&self) -> BoxFuture<'_, Result<Vec<DestinationOverview>, StoreError>>;

    /// Reads the hosts that are known, the latest heartbeat first.
    fn hosts(&self) -> BoxFuture<'_, Result<Vec<StoredHost>, StoreError>>;

    /// Reads the endpoints with their subscriptions, in the order of their names.
    fn endpoints(&self) -> BoxFuture<'_, Result<Vec<StoredEndpoint>, StoreError>>;

    /// Reads one instance, tombstones included.
    fn instance<'a>(
        &'a self,
        id: &'a InstanceId,
    ) -> BoxFuture<'a, Result<Option<Instance>, StoreError>>;

    /// Reads the labels of an instance, in the order of their names.
    fn labels<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<Vec<Label>, StoreError>>;

    /// Reads instances without their data, in the order of kind and key.
    ///
    /// Key and label are looked up; state and times have no index, which every message would pay
    /// for: a question for them alone reads through the instances.
    fn instances<'a>(
        &'a self,
        filter: &'a InstanceFilter,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<InstanceOverview>, StoreError>>;

    /// Sums running instances up by kind, state and schema version, in that order: at most
    /// [`SHAPES_MAX`](super::SHAPES_MAX) entries. Reads through the instances.
    fn instance_shapes(&self) -> BoxFuture<'_, Result<Vec<InstanceShape>, StoreError>>;

    /// Sums up what waits at endpoints of this database by endpoint, message type, version and the
    /// kind of instance whose timer it is, in that order: at most [`SHAPES_MAX`](super::SHAPES_MAX)
    /// entries. Stubs of dead letters are left out. Reads through the outbox.
    fn waiting_shapes(&self) -> BoxFuture<'_, Result<Vec<WaitingShape>, StoreError>>;

    /// Reads what units did.
    ///
    /// A message is looked up. Instance and conversation have no index, which every message would pay
    /// for: a question for them reads through all that is kept.
    fn history<'a>(
        &'a self,
        of: &'a HistoryOf,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<StoredHistory>, StoreError>>;

    /// Reads what was taken over from brokers and APIs, the largest identity first: those that
    /// sagabus gives out grow with time.
    ///
    /// A message is looked up; endpoint and time have no index: a question for them alone reads
    /// through the inbox.
    fn inbox<'a>(
        &'a self,
        filter: &'a InboxFilter,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<TakenOver>, StoreError>>;

    /// Balances what came to each endpoint against what became of it, all at one moment. Endpoints
    /// of these names are left out: their units leave no history, so nothing says what they handled.
    ///
    /// Reads through inbox, history, outbox and dead letters.
    fn accounts<'a>(&'a self, without: &'a [String])
    -> BoxFuture<'a, Result<Accounts, StoreError>>;

    /// Reads the changes of operators.
    fn audit<'a>(
        &'a self,
        filter: &'a AuditFilter,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<AuditEntry>, StoreError>>;

    /// Carries a change out, and writes who did it and why in the same transaction.
    ///
    /// `Ok` has the ids of what was changed. What is not there, or is already as the change wants
    /// it, is left out: making a change again changes nothing. A change of nothing leaves no entry.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when more than [`PAGE_MAX`](super::PAGE_MAX) ids are named, or a text has a NUL
    /// character; [`StoreError::Unknown`] when only reading again tells.
    ///
    /// # Cancel safety
    /// One transaction: whole or not at all.
    fn change<'a>(&'a self, change: &'a Change) -> BoxFuture<'a, Result<Vec<i64>, StoreError>>;

    /// Reads the latest dead letters that are open.
    fn dead_letters(&self, limit: u32) -> BoxFuture<'_, Result<Vec<StoredDeadLetter>, StoreError>> {
        async move {
            let open = DeadLetterFilter::default();
            self.find_dead_letters(&open, Page::latest(limit)).await
        }
        .boxed()
    }

    /// Turns a dead letter back into a row of its endpoint, on behalf of a program.
    /// `Ok(false)`: no such dead letter is open.
    fn redrive(&self, id: i64) -> BoxFuture<'_, Result<bool, StoreError>> {
        async move {
            let change = Change {
                who: "program".to_owned(),
                why: String::new(),
                action: Action::RedriveDeadLetters(vec![id]),
            };
            Ok(!self.change(&change).await?.is_empty())
        }
        .boxed()
    }
}

/// Fails to compile if `StoreAdmin` cannot be used as `dyn StoreAdmin`.
fn _obj_safe(_: &dyn StoreAdmin) {}
