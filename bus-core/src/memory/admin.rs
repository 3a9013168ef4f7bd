//! What the in-memory store answers for people.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;

use super::database::Database;
use super::store::{MemoryStore, ready};
use crate::admin::{
    About, Accounts, AuditEntry, AuditFilter, Change, Counts, DeadLetterFilter, DeadLetterGroup,
    DeadLetterStatus, DestinationOverview, First, HistoryOf, InboxFilter, InstanceFilter,
    InstanceOverview, InstanceShape, Page, RowFilter, SentFilter, StoreAdmin, StoredDeadLetter,
    StoredEndpoint, StoredHistory, StoredHost, StoredRow, StoredSent, TakenOver, Tally, Vitals,
    WaitingShape, cut,
};
use crate::clock::Timestamp;
use crate::endpoint::{EndpointId, EndpointName};
use crate::envelope::Envelope;
use crate::error::StoreError;
use crate::id::{InstanceId, MessageId};
use crate::store::Instance;
use crate::unit_of_work::{HistoryEntry, InstanceStatus, Label};

impl StoreAdmin for MemoryStore {
    fn about(&self) -> BoxFuture<'_, Result<About, StoreError>> {
        ready(Ok(self.with(|database, now| About {
            store: database.store,
            engine: "memory",
            schema_version: 0,
            now,
        })))
    }

    fn counts(&self) -> BoxFuture<'_, Result<Counts, StoreError>> {
        ready(Ok(self.with(|database, _| database.counts())))
    }

    fn vitals(&self) -> BoxFuture<'_, Result<Vitals, StoreError>> {
        ready(Ok(self.with(|database, _| Vitals {
            held: database.outbox.stub_count() as u64,
            ..Vitals::default()
        })))
    }

    fn find_dead_letters<'a>(
        &'a self,
        filter: &'a DeadLetterFilter,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<StoredDeadLetter>, StoreError>> {
        self.checked(filter.check(), |database| {
            let found = database.matching(filter).map(|one| StoredDeadLetter {
                envelope: Envelope {
                    body: cut(&one.envelope.body, page.body_bytes_max),
                    ..one.envelope.clone()
                },
                ..one.clone()
            });
            paged(found, page, |one| one.id)
        })
    }

    fn dead_letter_groups<'a>(
        &'a self,
        filter: &'a DeadLetterFilter,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<DeadLetterGroup>, StoreError>> {
        self.checked(filter.check(), |database| database.groups(filter, limit))
    }

    fn count_dead_letters<'a>(
        &'a self,
        filter: &'a DeadLetterFilter,
    ) -> BoxFuture<'a, Result<Tally, StoreError>> {
        self.checked(filter.check(), |database| {
            tally(database.matching(filter).map(|one| (one.id, one.at)))
        })
    }

    fn rows<'a>(
        &'a self,
        filter: &'a RowFilter,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<StoredRow>, StoreError>> {
        self.checked(filter.check(), |database| {
            let all = database.outbox.stored(page.body_bytes_max);
            paged(all.filter(|row| filter.lets(row)), page, |row| row.id)
        })
    }

    fn count_rows<'a>(&'a self, filter: &'a RowFilter) -> BoxFuture<'a, Result<Tally, StoreError>> {
        self.checked(filter.check(), |database| {
            let rows = database.rows_of(filter);
            tally(rows.map(|row| (row.id, row.created_at)))
        })
    }

    fn sent<'a>(
        &'a self,
        filter: &'a SentFilter,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<StoredSent>, StoreError>> {
        ready(Ok(self.with(|database, _| {
            paged(database.sent_of(filter), page, |one| one.id)
        })))
    }

    fn count_sent<'a>(
        &'a self,
        filter: &'a SentFilter,
    ) -> BoxFuture<'a, Result<Tally, StoreError>> {
        ready(Ok(self.with(|database, _| {
            tally(database.sent_of(filter).map(|one| (one.id, one.sent_at)))
        })))
    }

    fn destinations(&self) -> BoxFuture<'_, Result<Vec<DestinationOverview>, StoreError>> {
        ready(Ok(self.with(|database, now| database.destinations(now))))
    }

    fn hosts(&self) -> BoxFuture<'_, Result<Vec<StoredHost>, StoreError>> {
        ready(Ok(self.with(|database, _| {
            let mut hosts: Vec<_> = database.hosts.values().cloned().collect();
            hosts.sort_by_key(|host| std::cmp::Reverse((host.heartbeat_at, host.id)));
            hosts
        })))
    }

    fn endpoints(&self) -> BoxFuture<'_, Result<Vec<StoredEndpoint>, StoreError>> {
        ready(Ok(self.with(|database, _| database.stored_endpoints())))
    }

    fn instance<'a>(
        &'a self,
        id: &'a InstanceId,
    ) -> BoxFuture<'a, Result<Option<Instance>, StoreError>> {
        ready(Ok(self.with(|database, _| database.instance(id))))
    }

    fn labels<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<Vec<Label>, StoreError>> {
        ready(Ok(self.with(|database, _| database.labels.of(id))))
    }

    fn instances<'a>(
        &'a self,
        filter: &'a InstanceFilter,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<InstanceOverview>, StoreError>> {
        ready(Ok(self.with(|database, _| {
            database.overviews(filter, Page::oldest(limit).size())
        })))
    }

    fn instance_shapes(&self) -> BoxFuture<'_, Result<Vec<InstanceShape>, StoreError>> {
        ready(Ok(self.with(|database, _| database.instance_shapes())))
    }

    fn waiting_shapes(&self) -> BoxFuture<'_, Result<Vec<WaitingShape>, StoreError>> {
        ready(Ok(self.with(|database, _| database.waiting_shapes())))
    }

    fn history<'a>(
        &'a self,
        of: &'a HistoryOf,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<StoredHistory>, StoreError>> {
        ready(Ok(self.with(|database, _| {
            let found = database
                .history
                .iter()
                .map(|one| database.stored_history(one));
            paged(found.filter(|one| is_of(of, one)), page, |one| one.id)
        })))
    }

    fn inbox<'a>(
        &'a self,
        filter: &'a InboxFilter,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<TakenOver>, StoreError>> {
        ready(Ok(self.with(|database, _| {
            database.taken_over(filter, Page::latest(limit).size())
        })))
    }

    fn accounts<'a>(
        &'a self,
        without: &'a [String],
    ) -> BoxFuture<'a, Result<Accounts, StoreError>> {
        ready(Ok(self.with(|database, _| database.accounts(without))))
    }

    fn audit<'a>(
        &'a self,
        filter: &'a AuditFilter,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<AuditEntry>, StoreError>> {
        ready(Ok(self.with(|database, _| {
            let found = database.audit.iter().filter(|one| filter.lets(one));
            paged(found.cloned(), page, |entry| entry.id)
        })))
    }

    fn change<'a>(&'a self, change: &'a Change) -> BoxFuture<'a, Result<Vec<i64>, StoreError>> {
        ready(self.with(|database, now| database.change(change, now)))
    }
}

impl MemoryStore {
    /// Answers a question that is not refused.
    fn checked<'a, T: Send + 'a>(
        &self,
        check: Result<(), StoreError>,
        answer: impl FnOnce(&mut Database) -> T,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        ready(check.map(|()| self.with(|database, _| answer(database))))
    }
}

/// Takes a page out of what is in the order of its ids.
pub(super) fn paged<T>(all: impl Iterator<Item = T>, page: Page, id: impl Fn(&T) -> i64) -> Vec<T> {
    let mut all: Vec<T> = all.collect();
    if page.first == First::Latest {
        all.reverse();
    }
    let is_behind = |one: &T| match (page.first, page.after) {
        (_, None) => true,
        (First::Latest, Some(after)) => id(one) < after,
        (First::Oldest, Some(after)) => id(one) > after,
    };
    let behind = all.into_iter().filter(is_behind);
    behind.take(page.size() as usize).collect()
}

/// Sums up what has these ids and times.
fn tally(all: impl Iterator<Item = (i64, Timestamp)>) -> Tally {
    all.fold(Tally::default(), |sum, (id, at)| Tally {
        count: sum.count + 1,
        first_at: Some(sum.first_at.map_or(at, |first| first.min(at))),
        last_at: sum.last_at.max(Some(at)),
        id_max: sum.id_max.max(Some(id)),
    })
}

fn is<T: PartialEq + ?Sized>(wanted: Option<&T>, value: &T) -> bool {
    wanted.is_none_or(|wanted| wanted == value)
}

fn is_of(of: &HistoryOf, one: &StoredHistory) -> bool {
    match of {
        HistoryOf::Instance(id) => {
            let instance = one.entry.instance.as_ref();
            instance.is_some_and(|(moved, _)| moved == id)
        }
        HistoryOf::Message(id) => one.entry.message_id == *id,
        HistoryOf::Sender(id) => one.entry.detail.has_sent(*id),
        HistoryOf::Conversation(id) => one.entry.correlation_id == *id,
    }
}

impl Database {
    pub(super) fn counts(&self) -> Counts {
        let instances = || {
            let all = self.instances.values().map(|one| &one.instance);
            all.filter(|one| !is_ours(&one.id))
        };
        let is_completed = |one: &&Instance| one.status == InstanceStatus::Completed;
        let completed = instances().filter(is_completed).count();
        let parked = self.outbox.parked_count();
        Counts {
            outbox: (self.outbox.len() - parked - self.outbox.stub_count()) as u64,
            parked: parked as u64,
            inbox: self.inbox.len() as u64,
            running: (instances().count() - completed) as u64,
            completed: completed as u64,
            dead_letters: self.matching(&DeadLetterFilter::default()).count() as u64,
            history: self.history.len() as u64,
        }
    }

    /// Lists the rows that a filter lets through, the oldest first and without bodies.
    pub(super) fn rows_of(&self, filter: &RowFilter) -> impl Iterator<Item = StoredRow> {
        self.outbox.stored(0).filter(|row| filter.lets(row))
    }

    /// Lists the kept messages that a filter lets through, the oldest row first.
    pub(super) fn sent_of(&self, filter: &SentFilter) -> impl Iterator<Item = StoredSent> {
        self.outbox.kept().filter(|one| filter.lets(one))
    }

    /// Lists the dead letters that a filter lets through, the oldest first.
    pub(super) fn matching(
        &self,
        filter: &DeadLetterFilter,
    ) -> impl Iterator<Item = &StoredDeadLetter> {
        self.dead_letters.values().filter(move |one| {
            let contains = |text: &String| {
                let text = text.to_ascii_lowercase();
                one.fingerprint.to_ascii_lowercase().contains(&text)
            };
            let has_label = |label: &Label| {
                let instance = one.instance.as_ref();
                instance.is_some_and(|id| self.labels.has(id, label))
            };
            is(filter.id.as_ref(), &one.id)
                && is(filter.status.as_ref(), &one.status)
                && is(filter.endpoint.as_deref(), &one.endpoint)
                && is(filter.message_type.as_deref(), &one.envelope.message_type)
                && is(filter.reason.as_deref(), &one.reason)
                && is(filter.fingerprint.as_deref(), &one.fingerprint)
                && filter.text.as_ref().is_none_or(contains)
                && (filter.key.is_none() || filter.key == one.key)
                && filter.label.as_ref().is_none_or(has_label)
                && is(filter.message.as_ref(), &one.envelope.id)
                && filter.since.is_none_or(|since| one.at >= since)
                && filter.until.is_none_or(|until| one.at < until)
                && filter.id_max.is_none_or(|id_max| one.id <= id_max)
        })
    }

    fn groups(&self, filter: &DeadLetterFilter, limit: u32) -> Vec<DeadLetterGroup> {
        let mut groups: BTreeMap<(&str, &str), DeadLetterGroup> = BTreeMap::new();
        for one in self.matching(filter) {
            let group = groups
                .entry((&one.endpoint, &one.fingerprint))
                .or_insert_with(|| DeadLetterGroup {
                    endpoint: one.endpoint.clone(),
                    fingerprint: one.fingerprint.clone(),
                    count: 0,
                    first_at: one.at,
                    last_at: one.at,
                    example: one.id,
                });
            group.count += 1;
            group.first_at = group.first_at.min(one.at);
            group.last_at = group.last_at.max(one.at);
            group.example = group.example.max(one.id);
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        // The order of endpoint and fingerprint stays among groups of one size.
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        groups.truncate(Page::latest(limit).size() as usize);
        groups
    }

    fn destinations(&self, now: Timestamp) -> Vec<DestinationOverview> {
        let mut all: BTreeMap<String, DestinationOverview> = BTreeMap::new();
        for row in self.outbox.stored(0) {
            let name = row.destination.clone();
            let one = all
                .entry(row.destination)
                .or_insert_with(|| DestinationOverview {
                    destination: name,
                    waiting: 0,
                    due: 0,
                    due_since: None,
                    oldest_at: None,
                    parked: 0,
                });
            if row.parked.is_some() {
                one.parked += 1;
                continue;
            }
            one.waiting += u64::from(row.available_at < Timestamp::NEVER);
            let oldest = one
                .oldest_at
                .map_or(row.created_at, |at| at.min(row.created_at));
            one.oldest_at = Some(oldest);
            if row.available_at <= now {
                one.due += 1;
                let since = one
                    .due_since
                    .map_or(row.available_at, |at| at.min(row.available_at));
                one.due_since = Some(since);
            }
        }
        all.into_values().collect()
    }

    fn stored_endpoints(&self) -> Vec<StoredEndpoint> {
        let mut endpoints: Vec<_> = self
            .routes
            .endpoints
            .values()
            .map(|target| StoredEndpoint {
                name: target.name.to_string(),
                order: target.order,
                subscriptions: self
                    .subscriptions
                    .iter()
                    .filter(|((_, endpoint), _)| *endpoint == target.name)
                    .map(|((name, _), kind)| (name.clone(), kind.as_str().to_owned()))
                    .collect(),
            })
            .collect();
        endpoints.sort_by(|a, b| a.name.cmp(&b.name));
        endpoints
    }

    fn overviews(&self, filter: &InstanceFilter, limit: u32) -> Vec<InstanceOverview> {
        let key = |id: &InstanceId| (id.kind.to_string(), id.key.clone());
        let after = filter.after.as_ref().map(key);
        let mut found: Vec<_> = self
            .instances
            .values()
            .filter(|one| {
                let instance = &one.instance;
                let is_kind = match &filter.kind {
                    Some(kind) => **kind == *instance.id.kind,
                    None => !is_ours(&instance.id),
                };
                is_kind
                    && is(filter.key.as_deref(), &instance.id.key)
                    && filter
                        .label
                        .as_ref()
                        .is_none_or(|label| self.labels.has(&instance.id, label))
                    && (filter.state.is_none() || filter.state == instance.state)
                    && is(filter.status.as_ref(), &instance.status)
                    && filter.created_before.is_none_or(|at| one.created_at < at)
                    && filter.idle_since.is_none_or(|at| one.updated_at < at)
                    && filter
                        .schema_before
                        .is_none_or(|version| instance.schema_version < version)
                    && after
                        .as_ref()
                        .is_none_or(|after| key(&instance.id) > *after)
            })
            .map(|one| InstanceOverview {
                id: one.instance.id.clone(),
                version: one.instance.version,
                status: one.instance.status,
                state: one.instance.state.clone(),
                created_at: one.created_at,
                updated_at: one.updated_at,
            })
            .collect();
        found.sort_by_key(|one| key(&one.id));
        found.truncate(limit as usize);
        found
    }

    fn stored_history(&self, (id, at, entry): &(i64, Timestamp, HistoryEntry)) -> StoredHistory {
        StoredHistory {
            id: *id,
            at: *at,
            endpoint: self.endpoint_name(entry.endpoint),
            entry: entry.clone(),
        }
    }

    fn taken_over(&self, filter: &InboxFilter, limit: u32) -> Vec<TakenOver> {
        let number = |name: &String| {
            let name = EndpointName::new(name).ok()?;
            self.routes.endpoints.get(&name).map(|one| one.id)
        };
        let is_behind = |key: (MessageId, EndpointId)| match &filter.after {
            None => true,
            Some((message, endpoint)) => match endpoint.as_ref().and_then(number) {
                Some(endpoint) => key < (*message, endpoint),
                None => key.0 < *message,
            },
        };
        let mut found: Vec<_> = self
            .inbox
            .iter()
            .filter(|((message, endpoint), at)| {
                let name = filter.endpoint.as_ref();
                is(filter.message.as_ref(), message)
                    && name.is_none_or(|name| number(name) == Some(*endpoint))
                    && filter.since.is_none_or(|since| **at >= since)
                    && filter.until.is_none_or(|until| **at < until)
                    && is_behind((*message, *endpoint))
            })
            .map(|(key, at)| (*key, *at))
            .collect();
        found.sort_by_key(|(key, _)| std::cmp::Reverse(*key));
        found.truncate(limit as usize);
        let history = |key: (MessageId, EndpointId)| {
            let mut all = self.history.iter().rev();
            let it = all.find(|(_, _, one)| (one.message_id, one.endpoint) == key);
            it.map(|one| self.stored_history(one))
        };
        let shown = found.into_iter().map(|(key, at)| TakenOver {
            message: key.0,
            endpoint: self.endpoint_name(key.1),
            at,
            handled: history(key),
        });
        shown.collect()
    }

    fn endpoint_name(&self, id: EndpointId) -> Option<String> {
        let mut known = self.routes.endpoints.values();
        known
            .find(|one| one.id == id)
            .map(|one| one.name.to_string())
    }

    /// Says whether a dead letter of a message is open at an endpoint.
    pub(super) fn has_open(&self, endpoint: &str, message: MessageId) -> bool {
        self.dead_letters.values().any(|one| {
            one.status == DeadLetterStatus::Open
                && one.endpoint == endpoint
                && one.envelope.id == message
        })
    }
}

/// Says whether an instance is none of a saga, machine or flow, but of the bus itself.
fn is_ours(id: &InstanceId) -> bool {
    id.kind.starts_with('@')
}
