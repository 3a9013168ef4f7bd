//! The tables of the in-memory store, without the outbox.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::watch;

use super::labels::Labels;
use super::outbox::{NewRow, Outbox};
use crate::clock::Timestamp;
use crate::endpoint::{EndpointId, EndpointName, Order};
use crate::error::StoreError;
use crate::id::{InstanceId, MessageId, StoreId};
use crate::message::Kind;
use crate::store::{
    Answer, Attached, Birth, Counts, EndpointSpec, Fate, Instance, Place, Question, Registration,
    Retention, Routes, StoredDeadLetter, Swept, Target,
};
use crate::unit_of_work::{DeadLetter, HistoryEntry, InstanceStatus};

/// Everything that the store keeps.
pub(super) struct Database {
    store: StoreId,
    pub(super) routes: Routes,
    subscriptions: BTreeMap<(String, EndpointName), Kind>,
    pub(super) inbox: HashMap<(MessageId, EndpointId), Timestamp>,
    pub(super) outbox: Outbox,
    instances: HashMap<InstanceId, (Instance, Timestamp)>,
    pub(super) labels: Labels,
    history: VecDeque<(Timestamp, HistoryEntry)>,
    /// Those that nobody has dealt with.
    dead_letters: BTreeMap<i64, OpenDeadLetter>,
    last_dead_letter: i64,
}

/// A dead letter, with what its redrive needs.
struct OpenDeadLetter {
    stored: StoredDeadLetter,
    key: Option<String>,
}

impl Database {
    pub(super) fn new() -> Self {
        Self {
            store: StoreId::new(),
            routes: Routes::default(),
            subscriptions: BTreeMap::new(),
            inbox: HashMap::new(),
            outbox: Outbox::default(),
            instances: HashMap::new(),
            labels: Labels::default(),
            history: VecDeque::new(),
            dead_letters: BTreeMap::new(),
            last_dead_letter: 0,
        }
    }

    /// Adds endpoints and subscriptions; what other hosts registered stays.
    pub(super) fn attach(
        &mut self,
        registration: &Registration,
        wakeups: watch::Receiver<u64>,
        now: Timestamp,
    ) -> Result<Attached, StoreError> {
        self.refuse_second_owner(&registration.endpoints)?;
        let mut is_changed = false;
        for spec in &registration.endpoints {
            is_changed |= self.register(spec);
        }
        if is_changed {
            self.routes.version += 1;
            self.routes.subscribers = self.subscribers();
        }
        self.adopt(now);
        let ids = registration
            .endpoints
            .iter()
            .filter_map(|spec| self.routes.endpoints.get(&spec.name))
            .map(|target| (target.name.clone(), target.id))
            .collect();
        Ok(Attached {
            store: self.store,
            endpoints: ids,
            routes: self.routes.clone(),
            wakeups,
        })
    }

    /// A command has one owner; a second one must not even be registered, or every sender would
    /// see two.
    fn refuse_second_owner(&self, specs: &[EndpointSpec]) -> Result<(), StoreError> {
        let known = self
            .subscriptions
            .iter()
            .map(|((message_type, endpoint), kind)| (message_type.as_str(), endpoint, *kind));
        let new = specs.iter().flat_map(|spec| {
            let taken = spec.subscriptions.iter();
            taken.map(|one| (one.message_type.as_ref(), &spec.name, one.kind))
        });
        let mut owners = BTreeMap::new();
        for (command, endpoint, kind) in known.chain(new) {
            if kind != Kind::Command {
                continue;
            }
            let owner = *owners.entry(command).or_insert(endpoint);
            if owner != endpoint {
                return Err(StoreError::Setup(format!(
                    "command `{command}` belongs to endpoint `{owner}` in this database, and \
                     endpoint `{endpoint}` takes it too; a command has one owner: remove one \
                     handler, or make it an event"
                )));
            }
        }
        Ok(())
    }

    /// Registers one endpoint and says whether that changed anything.
    fn register(&mut self, spec: &EndpointSpec) -> bool {
        let next = i32::try_from(self.routes.endpoints.len() + 1).unwrap_or(i32::MAX);
        let id = match self.routes.endpoints.get(&spec.name) {
            Some(known) => known.id,
            None => EndpointId(next),
        };
        let target = Target {
            id,
            name: spec.name.clone(),
            order: spec.order,
        };
        let former = self
            .routes
            .endpoints
            .insert(spec.name.clone(), target.clone());
        let mut is_changed = former != Some(target);
        for subscription in &spec.subscriptions {
            let key = (subscription.message_type.to_string(), spec.name.clone());
            let former = self.subscriptions.insert(key, subscription.kind);
            is_changed |= former != Some(subscription.kind);
        }
        is_changed
    }

    /// Hands commands that nobody took to the endpoints that own them now.
    fn adopt(&mut self, now: Timestamp) {
        for ((message_type, endpoint), kind) in &self.subscriptions {
            let target = self.routes.endpoints.get(endpoint);
            if let (Kind::Command, Some(target)) = (kind, target) {
                let parked_at = Place::Nowhere.as_stored(message_type);
                self.outbox.adopt(&parked_at, target, now);
            }
        }
    }

    /// Lists who takes what, endpoints in the order of their names.
    fn subscribers(&self) -> BTreeMap<String, Arc<[Target]>> {
        let mut lists: BTreeMap<String, Vec<Target>> = BTreeMap::new();
        for (message_type, endpoint) in self.subscriptions.keys() {
            if let Some(target) = self.routes.endpoints.get(endpoint) {
                let list = lists.entry(message_type.clone()).or_default();
                list.push(target.clone());
            }
        }
        lists
            .into_iter()
            .map(|(message_type, list)| (message_type, list.into()))
            .collect()
    }

    pub(super) fn answer(&self, question: &Question) -> Answer {
        Answer {
            is_taken_over: question
                .taken_over
                .is_some_and(|(endpoint, message)| self.inbox.contains_key(&(message, endpoint))),
            instance: {
                let labelled = |label| self.labels.owner(label);
                let id = question.instance.as_ref();
                let id = id.or_else(|| question.label.as_ref().and_then(labelled));
                id.and_then(|id| self.instance(id))
            },
            is_blocked: question
                .blocked
                .as_ref()
                .is_some_and(|(endpoint, key)| self.outbox.has_line(&format!("@{endpoint}"), key)),
            fate: question
                .fate
                .and_then(|(endpoint, id)| self.fate(endpoint, id)),
        }
    }

    fn fate(&self, endpoint: EndpointId, id: MessageId) -> Option<Fate> {
        let mut targets = self.routes.endpoints.values();
        let name = &targets.find(|target| target.id == endpoint)?.name;
        let mut letters = self.dead_letters.values().map(|open| &open.stored);
        let is_dead = letters.any(|one| one.endpoint == name.as_str() && one.envelope.id == id);
        let is_taken_over = self.inbox.contains_key(&(id, endpoint));
        let has_row = self.outbox.has_message(&format!("@{name}"), id);
        Some(Fate::of(is_taken_over, has_row, is_dead))
    }

    pub(super) fn instance(&self, id: &InstanceId) -> Option<Instance> {
        self.instances.get(id).map(|(instance, _)| instance.clone())
    }

    /// Returns an instance's version; 0 when there is none.
    pub(super) fn version(&self, id: &InstanceId) -> i64 {
        self.instances
            .get(id)
            .map_or(0, |(instance, _)| instance.version)
    }

    pub(super) fn put_instance(&mut self, instance: Instance, now: Timestamp) {
        self.instances.insert(instance.id.clone(), (instance, now));
    }

    pub(super) fn put_history(&mut self, entry: HistoryEntry, now: Timestamp) {
        self.history.push_back((now, entry));
    }

    pub(super) fn history(&self) -> Vec<HistoryEntry> {
        self.history
            .iter()
            .map(|(_, entry)| entry.clone())
            .collect()
    }

    /// Writes a dead letter; one that is still open for the same message is written over.
    pub(super) fn put_dead_letter(&mut self, dead: &DeadLetter, now: Timestamp) {
        let open = self.dead_letters.values().find(|open| {
            open.stored.endpoint == dead.endpoint.as_str()
                && open.stored.envelope.id == dead.envelope.id
        });
        let id = match open {
            Some(open) => open.stored.id,
            None => {
                self.last_dead_letter += 1;
                self.last_dead_letter
            }
        };
        let stored = StoredDeadLetter {
            id,
            endpoint: dead.endpoint.as_str().to_owned(),
            envelope: dead.envelope.clone(),
            reason: dead.reason.as_str().to_owned(),
            attempts: dead.attempts.clone(),
            at: now,
        };
        let key = dead.key.clone();
        self.dead_letters.insert(id, OpenDeadLetter { stored, key });
    }

    pub(super) fn dead_letters(&self, limit: u32) -> Vec<StoredDeadLetter> {
        let mut letters: Vec<_> = self
            .dead_letters
            .values()
            .map(|open| open.stored.clone())
            .collect();
        letters.sort_by_key(|letter| std::cmp::Reverse((letter.at, letter.id)));
        letters.truncate(limit as usize);
        letters
    }

    pub(super) fn redrive(&mut self, id: i64, now: Timestamp) -> bool {
        let Some(open) = self.dead_letters.remove(&id) else {
            return false;
        };
        let order = self
            .routes
            .endpoints
            .values()
            .find(|target| target.name.as_str() == open.stored.endpoint)
            .map_or(Order::Unordered, |target| target.order);
        let row = NewRow {
            destination: format!("@{}", open.stored.endpoint),
            order,
            envelope: open.stored.envelope,
            key: open.key,
            due_at: now,
            expires_at: None,
            attempts: Vec::new(),
            timer: None,
        };
        // Born available: an operator's process handles nothing itself.
        self.outbox.insert(row, Birth::Available, now, now);
        true
    }

    pub(super) fn counts(&self) -> Counts {
        let completed = self
            .instances
            .values()
            .filter(|(instance, _)| instance.status == InstanceStatus::Completed)
            .count();
        let parked = self.outbox.parked_count();
        Counts {
            outbox: (self.outbox.len() - parked) as u64,
            parked: parked as u64,
            inbox: self.inbox.len() as u64,
            running: (self.instances.len() - completed) as u64,
            completed: completed as u64,
            dead_letters: self.dead_letters.len() as u64,
            history: self.history.len() as u64,
        }
    }

    pub(super) fn sweep(&mut self, retention: &Retention, now: Timestamp) -> Swept {
        let most = retention.rows_max as usize;
        let is_old = |at: Timestamp, kept| at.plus(kept) < now;

        let inbox: Vec<_> = self
            .inbox
            .iter()
            .filter(|(_, at)| is_old(**at, retention.inbox))
            .map(|(key, _)| *key)
            .take(most)
            .collect();
        for key in &inbox {
            self.inbox.remove(key);
        }

        let history = self
            .history
            .iter()
            .take(most)
            .take_while(|(at, _)| is_old(*at, retention.history))
            .count();
        self.history.drain(..history);

        let tombstones: Vec<_> = self
            .instances
            .values()
            .filter(|(instance, _)| instance.status == InstanceStatus::Completed)
            .filter(|(_, at)| is_old(*at, retention.tombstones))
            .map(|(instance, _)| instance.id.clone())
            .take(most)
            .collect();
        for id in &tombstones {
            self.instances.remove(id);
            self.labels.remove(id);
        }

        let removed = [inbox.len(), history, tombstones.len()];
        Swept {
            inbox: inbox.len() as u64,
            history: history as u64,
            tombstones: tombstones.len() as u64,
            is_full: removed.contains(&most),
        }
    }
}
