//! Bulk changes in the in-memory store.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::admin::paged;
use super::change::sorted;
use super::database::Database;
use super::store::{MemoryStore, ready};
use crate::admin::{
    AuditEntry, DeadLetterFilter, DeadLetterStatus, NewOperation, OperationState, Operations,
    PAGE_MAX, Page, Redriven, RowFilter, Selected, SentFilter, StoredDeadLetter, StoredOperation,
    Subject, Told, Verb, Wheel,
};
use crate::clock::Timestamp;
use crate::error::StoreError;

/// An operation with what was selected.
pub(super) struct Operation {
    stored: StoredOperation,
    /// In the order of their ids; the first `taken` had their turn.
    selected: Vec<i64>,
}

impl Operation {
    /// Lists the dead letters that had their turn to be redriven to an endpoint of the operator's.
    pub(super) fn sent_elsewhere(&self) -> impl Iterator<Item = (i64, &str)> {
        let taken = usize::try_from(self.stored.taken).unwrap_or(usize::MAX);
        let to = match &self.stored.verb {
            Verb::Redrive { to } => to.as_deref(),
            Verb::Discard | Verb::Restore | Verb::Rows(_) | Verb::Republish => None,
        };
        let had = self.selected.iter().take(taken);
        to.into_iter()
            .flat_map(move |to| had.clone().map(move |id| (*id, to)))
    }
}

impl Operations for MemoryStore {
    fn begin_operation<'a>(
        &'a self,
        new: &'a NewOperation,
    ) -> BoxFuture<'a, Result<Option<StoredOperation>, StoreError>> {
        ready(self.with(|database, now| database.begin_operation(new, now)))
    }

    fn operations(
        &self,
        id: Option<i64>,
        page: Page,
    ) -> BoxFuture<'_, Result<Vec<StoredOperation>, StoreError>> {
        ready(Ok(self.with(|database, _| {
            let all = database.operations.values().map(|one| one.stored.clone());
            let found = all.filter(|one| id.is_none_or(|id| one.id == id));
            paged(found, page, |one| one.id)
        })))
    }

    fn take_wheel<'a>(
        &'a self,
        id: i64,
        driver: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Option<StoredOperation>, StoreError>> {
        ready(Ok(self.with(|database, now| {
            database.take_wheel(id, driver, lease, now)
        })))
    }

    fn step(
        &self,
        wheel: Wheel,
        count: u32,
    ) -> BoxFuture<'_, Result<Option<StoredOperation>, StoreError>> {
        ready(Ok(
            self.with(|database, now| database.step(wheel, count, now))
        ))
    }

    fn tell<'a>(
        &'a self,
        told: &'a Told,
    ) -> BoxFuture<'a, Result<Option<StoredOperation>, StoreError>> {
        ready(self.with(|database, now| database.tell(told, now)))
    }

    fn redriven(&self, id: i64) -> BoxFuture<'_, Result<Redriven, StoreError>> {
        ready(Ok(self.with(|database, _| database.redriven(id))))
    }
}

impl Database {
    fn begin_operation(
        &mut self,
        new: &NewOperation,
        now: Timestamp,
    ) -> Result<Option<StoredOperation>, StoreError> {
        new.check()?;
        let selected = self.select(new);
        new.check_total(selected.len() as u64)?;
        if selected.is_empty() {
            return Ok(None);
        }
        let endpoints: BTreeSet<_> = match new.verb.subject() {
            Subject::DeadLetters => {
                let found = selected.iter().filter_map(|id| self.dead_letters.get(id));
                found.map(|one| one.endpoint.clone()).collect()
            }
            Subject::Rows | Subject::Sent => BTreeSet::new(),
        };
        let id = self.operations.last_key_value().map_or(0, |(id, _)| *id) + 1;
        let stored = StoredOperation {
            id,
            state: OperationState::Running,
            verb: new.verb.clone(),
            pace: new.pace,
            who: new.who.clone(),
            why: new.why.clone(),
            selection: new.selection(),
            endpoints: endpoints.into_iter().collect(),
            total: selected.len() as u64,
            taken: 0,
            changed: 0,
            note: None,
            driver: None,
            lease_until: None,
            epoch: 0,
            created_at: now,
            updated_at: now,
        };
        let detail = json!({
            "verb": new.verb.as_str(),
            "to": new.verb.to(),
            "total": stored.total,
            "selection": stored.selection,
        });
        self.note(now, (&new.who, &new.why), "begin_operation", id, detail);
        let operation = Operation {
            stored: stored.clone(),
            selected,
        };
        self.operations.insert(id, operation);
        Ok(Some(stored))
    }

    /// Finds what an operation is for, in the order of the ids.
    fn select(&self, new: &NewOperation) -> Vec<i64> {
        let named = match &new.selected {
            Selected::DeadLetters(filter) => {
                return self.matching(filter).map(|one| one.id).collect();
            }
            Selected::Rows(filter) => return self.rows_of(filter).map(|row| row.id).collect(),
            Selected::Sent(filter) => return self.sent_of(filter).map(|one| one.id).collect(),
            Selected::Named(ids) => sorted(ids).into_iter(),
        };
        let (rows, sent) = (RowFilter::default(), SentFilter::default());
        let known: BTreeSet<i64> = match new.verb.subject() {
            Subject::DeadLetters => self.dead_letters.keys().copied().collect(),
            Subject::Rows => self.rows_of(&rows).map(|row| row.id).collect(),
            Subject::Sent => self.sent_of(&sent).map(|one| one.id).collect(),
        };
        named.filter(|id| known.contains(id)).collect()
    }

    fn take_wheel(
        &mut self,
        id: i64,
        driver: &str,
        lease: Duration,
        now: Timestamp,
    ) -> Option<StoredOperation> {
        let stored = &mut self.operations.get_mut(&id)?.stored;
        if stored.state != OperationState::Running || stored.is_driven(now) {
            return None;
        }
        stored.epoch += 1;
        stored.driver = Some(driver.to_owned());
        stored.lease_until = Some(now.plus(lease));
        stored.updated_at = now;
        Some(stored.clone())
    }

    fn step(&mut self, wheel: Wheel, count: u32, now: Timestamp) -> Option<StoredOperation> {
        let operation = self.operations.get(&wheel.id)?;
        let stored = &operation.stored;
        if stored.state != OperationState::Running || stored.epoch != wheel.epoch {
            return None;
        }
        let rest = operation.selected.iter().skip(stored.taken as usize);
        let ids: Vec<i64> = rest.take(count.min(PAGE_MAX) as usize).copied().collect();
        let (verb, who, why) = (stored.verb.clone(), stored.who.clone(), stored.why.clone());
        let (changed, detail) = match &verb {
            Verb::Redrive { to } => self.redrive(&ids, to.as_deref(), now),
            Verb::Discard => self.discard(&ids, now),
            Verb::Restore => self.mark(&ids, DeadLetterStatus::Discarded, DeadLetterStatus::Open),
            Verb::Rows(verb) => self.change_rows(&ids, verb, now),
            Verb::Republish => self.republish(&ids, now),
        };
        if !detail.is_empty() {
            let detail = Value::Array(detail);
            self.note(now, (&who, &why), verb.action(), wheel.id, detail);
        }
        let stored = &mut self.operations.get_mut(&wheel.id)?.stored;
        stored.taken += ids.len() as u64;
        stored.changed += changed.len() as u64;
        stored.lease_until = Some(now.plus(wheel.lease));
        stored.updated_at = now;
        if stored.taken == stored.total {
            stored.state = OperationState::Done;
            stored.lease_until = None;
        }
        Some(stored.clone())
    }

    fn tell(&mut self, told: &Told, now: Timestamp) -> Result<Option<StoredOperation>, StoreError> {
        told.check()?;
        let Some(operation) = self.operations.get_mut(&told.id) else {
            return Ok(None);
        };
        let stored = &mut operation.stored;
        let Some(next) = stored.state.after(told.command) else {
            return Ok(None);
        };
        stored.state = next;
        stored.note = (next == OperationState::Paused).then(|| told.why.clone());
        stored.lease_until = None;
        stored.updated_at = now;
        let stored = stored.clone();
        let detail = json!({ "taken": stored.taken, "total": stored.total });
        let action = told.command.action();
        self.note(now, (&told.who, &told.why), action, told.id, detail);
        Ok(Some(stored))
    }

    fn redriven(&self, id: i64) -> Redriven {
        let mut seen = Redriven::default();
        let Some(operation) = self.operations.get(&id) else {
            return seen;
        };
        let Verb::Redrive { to } = &operation.stored.verb else {
            return seen;
        };
        let last = operation.selected.last().copied().unwrap_or_default();
        let done = &operation.selected[..operation.stored.taken as usize];
        for dead in done.iter().filter_map(|id| self.dead_letters.get(id)) {
            let endpoint = to.as_deref().unwrap_or(&dead.endpoint);
            let message = dead.envelope.id;
            let filter = DeadLetterFilter {
                endpoint: Some(endpoint.to_owned()),
                message: Some(message),
                ..DeadLetterFilter::any()
            };
            let is_later = |again: &StoredDeadLetter| again.id > last;
            seen.died_again += u64::from(self.matching(&filter).any(is_later));
            let destination = format!("@{endpoint}");
            match self.outbox.failures_of(&destination, message) {
                Some(0) => seen.waiting += 1,
                Some(_) => seen.retrying += 1,
                None => {}
            }
        }
        seen
    }

    /// Writes an audit entry about an operation.
    fn note(
        &mut self,
        at: Timestamp,
        (who, why): (&str, &str),
        action: &str,
        operation: i64,
        detail: Value,
    ) {
        let detail = match detail {
            Value::Array(_) => detail,
            one => Value::Array(vec![one]),
        };
        self.put_audit(AuditEntry {
            id: 0, // Given by `put_audit`.
            at,
            who: who.to_owned(),
            action: action.to_owned(),
            why: why.to_owned(),
            operation: Some(operation),
            detail,
        });
    }
}
