//! The tables of the in-memory store, without the outbox.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::watch;

use super::labels::Labels;
use super::operations::Operation;
use super::outbox::Outbox;
use crate::admin::{AuditEntry, DeadLetterStatus, StoredDeadLetter, StoredHost};
use crate::clock::Timestamp;
use crate::endpoint::{EndpointId, EndpointName};
use crate::error::StoreError;
use crate::fingerprint::fingerprint;
use crate::id::{HostId, InstanceId, MessageId, StoreId};
use crate::message::Kind;
use crate::store::{
    Answer, Attached, EndpointSpec, Extension, Fate, Instance, Place, Question, Registration,
    Retention, Routes, Swept, Target,
};
use crate::unit_of_work::{DeadLetter, HistoryEntry, InstanceStatus};

/// Everything that the store keeps.
pub(super) struct Database {
    pub(super) store: StoreId,
    pub(super) routes: Routes,
    pub(super) subscriptions: BTreeMap<(String, EndpointName), Kind>,
    pub(super) inbox: HashMap<(MessageId, EndpointId), Timestamp>,
    pub(super) outbox: Outbox,
    pub(super) labels: Labels,
    pub(super) hosts: HashMap<HostId, StoredHost>,
    pub(super) instances: HashMap<InstanceId, StoredInstance>,
    pub(super) history: VecDeque<(i64, Timestamp, HistoryEntry)>,
    last_history: i64,
    /// Of what was done until then, something was swept.
    pub(super) swept_through: Timestamp,
    /// Also those that somebody has dealt with.
    pub(super) dead_letters: BTreeMap<i64, StoredDeadLetter>,
    pub(super) audit: VecDeque<AuditEntry>,
    last_audit: i64,
    pub(super) operations: BTreeMap<i64, Operation>,
}

/// An instance, with its times.
pub(super) struct StoredInstance {
    pub(super) instance: Instance,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

impl Database {
    pub(super) fn new() -> Self {
        Self {
            store: StoreId::new(),
            routes: Routes::default(),
            subscriptions: BTreeMap::new(),
            inbox: HashMap::new(),
            outbox: Outbox::default(),
            hosts: HashMap::new(),
            instances: HashMap::new(),
            labels: Labels::default(),
            history: VecDeque::new(),
            last_history: 0,
            swept_through: Timestamp::from_micros(0),
            dead_letters: BTreeMap::new(),
            audit: VecDeque::new(),
            last_audit: 0,
            operations: BTreeMap::new(),
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
        self.put_host(registration, now);
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
            now,
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
                     handler, or make it an event [SB0213]"
                )));
            }
        }
        Ok(())
    }

    /// Registers one endpoint and says whether that changed anything.
    fn register(&mut self, spec: &EndpointSpec) -> bool {
        let known = self.routes.endpoints.values();
        let next = known.map(|target| target.id.0).max().unwrap_or(0) + 1;
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

    fn put_host(&mut self, registration: &Registration, now: Timestamp) {
        let known = self.hosts.get(&registration.host);
        let host = StoredHost {
            id: registration.host,
            name: registration.host_name.clone(),
            started_at: known.map_or(now, |known| known.started_at),
            heartbeat_at: now,
            stopped_at: None,
            behind: known.and_then(|known| known.behind),
            definitions: registration.definitions.clone(),
        };
        self.hosts.insert(registration.host, host);
    }

    /// Notes that a host is alive, or was until now.
    pub(super) fn beat(&mut self, extension: &Extension, now: Timestamp) {
        if let Some(host) = self.hosts.get_mut(&extension.host) {
            host.heartbeat_at = now;
            host.stopped_at = extension.is_last.then_some(now);
            host.behind = Some(now.as_micros() - extension.clock.as_micros());
        }
    }

    /// Lists who takes what, endpoints in the order of their names.
    pub(super) fn subscribers(&self) -> BTreeMap<String, Arc<[Target]>> {
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
        let is_dead = self.has_open(name.as_str(), id);
        let is_taken_over = self.inbox.contains_key(&(id, endpoint));
        let has_row = self.outbox.has_message(&format!("@{name}"), id);
        Some(Fate::of(is_taken_over, has_row, is_dead))
    }

    pub(super) fn instance(&self, id: &InstanceId) -> Option<Instance> {
        self.instances.get(id).map(|one| one.instance.clone())
    }

    /// Returns an instance's version; 0 when there is none.
    pub(super) fn version(&self, id: &InstanceId) -> i64 {
        self.instances.get(id).map_or(0, |one| one.instance.version)
    }

    pub(super) fn put_instance(&mut self, instance: Instance, now: Timestamp) {
        let known = self.instances.get(&instance.id);
        let created_at = known.map_or(now, |one| one.created_at);
        let stored = StoredInstance {
            created_at,
            updated_at: now,
            instance,
        };
        self.instances.insert(stored.instance.id.clone(), stored);
    }

    pub(super) fn put_history(&mut self, entry: HistoryEntry, now: Timestamp) {
        self.last_history += 1;
        self.history.push_back((self.last_history, now, entry));
    }

    pub(super) fn history(&self) -> Vec<HistoryEntry> {
        self.history
            .iter()
            .map(|(_, _, entry)| entry.clone())
            .collect()
    }

    /// Writes a dead letter; one that is still open for the same message is written over.
    pub(super) fn put_dead_letter(&mut self, dead: &DeadLetter, now: Timestamp) {
        let open = self.dead_letters.values().find(|open| {
            open.status == DeadLetterStatus::Open
                && open.endpoint == dead.endpoint.as_str()
                && open.envelope.id == dead.envelope.id
        });
        let last = self.dead_letters.last_key_value().map_or(0, |(id, _)| *id);
        let id = open.map_or(last + 1, |open| open.id);
        let stored = StoredDeadLetter {
            id,
            status: DeadLetterStatus::Open,
            endpoint: dead.endpoint.as_str().to_owned(),
            envelope: dead.envelope.clone(),
            body_bytes: dead.envelope.body.len() as u64,
            reason: dead.reason.as_str().to_owned(),
            key: dead.key.clone(),
            instance: dead.instance.clone(),
            fingerprint: fingerprint(dead.reason, &dead.attempts),
            attempts: dead.attempts.clone(),
            at: now,
        };
        self.dead_letters.insert(id, stored);
    }

    /// Removes dead letters that somebody dealt with, and counts them.
    fn sweep_dead_letters(&mut self, retention: &Retention, now: Timestamp) -> usize {
        let dealt_with = self.dead_letters.values();
        let dealt_with = dealt_with.filter(|one| one.status != DeadLetterStatus::Open);
        let old: Vec<_> = dealt_with
            .filter(|one| one.at.plus(retention.dealt_with()) < now)
            .map(|one| (one.id, one.at))
            .take(retention.rows_max as usize)
            .collect();
        for (id, at) in &old {
            self.dead_letters.remove(id);
            self.swept_through = self.swept_through.max(*at);
        }
        old.len()
    }

    /// Writes an audit entry.
    pub(super) fn put_audit(&mut self, entry: AuditEntry) {
        self.last_audit += 1;
        let id = self.last_audit;
        self.audit.push_back(AuditEntry { id, ..entry });
    }

    /// Removes what is older than it has to be.
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
            .take_while(|(_, at, _)| is_old(*at, retention.history))
            .count();
        for (_, at, _) in self.history.drain(..history) {
            self.swept_through = self.swept_through.max(at);
        }

        let tombstones: Vec<_> = self
            .instances
            .values()
            .filter(|one| one.instance.status == InstanceStatus::Completed)
            .filter(|one| is_old(one.updated_at, retention.finished()))
            .map(|one| one.instance.id.clone())
            .take(most)
            .collect();
        for id in &tombstones {
            self.instances.remove(id);
            self.labels.remove(id);
        }

        self.hosts
            .retain(|_, host| !is_old(host.heartbeat_at, retention.history));

        let dead = self.sweep_dead_letters(retention, now);
        let audit = self.audit.iter().take(most);
        let audit = audit
            .take_while(|one| is_old(one.at, retention.audit))
            .count();
        for one in self.audit.drain(..audit) {
            self.swept_through = self.swept_through.max(one.at);
        }

        let sent = self.outbox.sweep_sent(most, now);
        let removed = [inbox.len(), history, tombstones.len(), dead, audit, sent];
        Swept {
            inbox: inbox.len() as u64,
            history: history as u64,
            tombstones: tombstones.len() as u64,
            dead_letters: dead as u64,
            audit: audit as u64,
            sent: sent as u64,
            is_full: removed.contains(&most),
        }
    }
}
