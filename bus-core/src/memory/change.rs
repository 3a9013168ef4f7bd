//! What operators change in the in-memory store.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::database::{Database, StoredInstance};
use super::outbox::NewRow;
use crate::admin::{
    ASKED, Action, Alteration, AuditEntry, CANCEL, Change, DeadLetterStatus, ERRAND_STALE_MICROS,
    Edit, Errand, StoredDeadLetter, StoredRow, TRANSITION, Transitioned, errand_id,
};
use crate::clock::Timestamp;
use crate::endpoint::Order;
use crate::envelope::Envelope;
use crate::error::StoreError;
use crate::headers;
use crate::holding::{pause_id, transport_pause_id};
use crate::id::InstanceId;
use crate::schedule::{ScheduleVerb, schedule_id};
use crate::store::{Birth, Instance};
use crate::unit_of_work::InstanceStatus;

/// What was done: the ids that changed, and an object for the audit per row.
pub(super) type Done = (Vec<i64>, Vec<Value>);

impl Database {
    pub(super) fn change(
        &mut self,
        change: &Change,
        now: Timestamp,
    ) -> Result<Vec<i64>, StoreError> {
        change.check()?;
        let (ids, detail) = match &change.action {
            Action::RedriveDeadLetters(ids) => self.redrive(ids, None, now),
            Action::DiscardDeadLetters(ids) => self.discard(ids, now),
            Action::RestoreDeadLetters(ids) => {
                self.mark(ids, DeadLetterStatus::Discarded, DeadLetterStatus::Open)
            }
            Action::RepublishSent(ids) => self.republish(ids, now),
            Action::ChangeRows { ids, verb } => self.change_rows(ids, verb, now),
            Action::SendMessage { endpoint, envelope } => self.send(endpoint, envelope, now),
            Action::EditDeadLetter(edit) => self.edit(edit, now),
            Action::AlterInstance(alteration) => self.alter(alteration, now),
            Action::CompleteInstance { instance, version } => {
                self.complete(instance, *version, now)
            }
            Action::RemoveSubscription {
                endpoint,
                message_type,
            } => self.remove_subscription(endpoint, message_type),
            Action::RemoveEndpoint { endpoint } => self.remove_endpoint(endpoint),
            Action::MoveTimers { ids, due } => self.move_timers(ids, *due, now),
            Action::CancelTimers(ids) => self.cancel_timers(ids, now),
            Action::PauseEndpoint { endpoint } => self.pause_endpoint(endpoint, now),
            Action::ResumeEndpoint { endpoint } => self.resume_endpoint(endpoint),
            Action::PauseTransport { transport } => self.pause_transport(transport, now),
            Action::ResumeTransport { transport } => {
                let held = self.instances.remove(&transport_pause_id(transport));
                let detail = json!({ "transport": transport });
                held.map_or_else(Done::default, |_| (vec![1], vec![detail]))
            }
            Action::ChangeSchedule { name, verb } => self.change_schedule(name, *verb, now),
            Action::AskHost(errand) => self.ask_host(errand, now),
            Action::NoteTransition(done) => self.note_transition(&change.who, done),
        };
        if !detail.is_empty() {
            self.put_audit(AuditEntry {
                id: 0, // Given by `put_audit`.
                at: now,
                who: change.who.clone(),
                action: change.action.as_str().to_owned(),
                why: change.why.clone(),
                operation: None,
                detail: Value::Array(detail),
            });
        }
        Ok(ids)
    }

    /// Turns dead letters back into rows, of another endpoint where that is said.
    pub(super) fn redrive(&mut self, ids: &[i64], to: Option<&str>, now: Timestamp) -> Done {
        let done = self.mark(ids, DeadLetterStatus::Open, DeadLetterStatus::Redriven);
        for id in &done.0 {
            self.send_again(*id, to, now);
        }
        done
    }

    /// Says of dead letters that they are not wanted any more.
    pub(super) fn discard(&mut self, ids: &[i64], now: Timestamp) -> Done {
        let done = self.mark(ids, DeadLetterStatus::Open, DeadLetterStatus::Discarded);
        for id in &done.0 {
            self.drop_stub(*id, now);
        }
        done
    }

    /// Redrives one dead letter with another body. The dead letter keeps what it was.
    fn edit(&mut self, edit: &Edit, now: Timestamp) -> Done {
        let is_seen = |one: &StoredDeadLetter| one.envelope.body == edit.before;
        if !self.dead_letters.get(&edit.id).is_some_and(is_seen) {
            return Done::default();
        }
        let mut done = self.mark(
            &[edit.id],
            DeadLetterStatus::Open,
            DeadLetterStatus::Redriven,
        );
        let Some(dead) = self
            .dead_letters
            .get(&edit.id)
            .filter(|_| !done.0.is_empty())
        else {
            return Done::default();
        };
        let envelope = Envelope {
            id: edit.message,
            body: edit.after.clone(),
            ..dead.envelope.clone()
        };
        self.put_back(edit.id, envelope, None, now);
        if let (Some(Value::Object(names)), Value::Object(more)) =
            (done.1.first_mut(), edit.detail())
        {
            names.extend(more);
        }
        done
    }

    fn alter(&mut self, alteration: &Alteration, now: Timestamp) -> Done {
        let Some(one) = self.current(&alteration.instance, alteration.version) else {
            return Done::default();
        };
        one.instance.version += 1;
        one.instance.state.clone_from(&alteration.after.state);
        one.instance.data = alteration.after.data.clone();
        one.updated_at = now;
        (vec![one.instance.version], vec![alteration.detail()])
    }

    fn complete(&mut self, id: &InstanceId, version: i64, now: Timestamp) -> Done {
        let Some(one) = self.current(id, version) else {
            return Done::default();
        };
        one.instance.version += 1;
        one.instance.status = InstanceStatus::Completed;
        let timers = std::mem::take(&mut one.instance.timers);
        one.updated_at = now;
        for name in timers.keys() {
            self.outbox.disarm(id, name, now);
        }
        let detail = json!({ "kind": id.kind, "key": id.key, "version": version });
        (vec![version + 1], vec![detail])
    }

    /// Finds an instance that goes on and is still of this version.
    fn current(&mut self, id: &InstanceId, version: i64) -> Option<&mut StoredInstance> {
        let one = self.instances.get_mut(id)?;
        let is_running = one.instance.status == InstanceStatus::Running;
        (is_running && one.instance.version == version).then_some(one)
    }

    fn drop_stub(&mut self, id: i64, now: Timestamp) {
        if let Some(stub) = self.stub_of(id) {
            self.outbox.remove(stub, now);
        }
    }

    /// Moves dead letters from one status to another.
    pub(super) fn mark(
        &mut self,
        ids: &[i64],
        from: DeadLetterStatus,
        to: DeadLetterStatus,
    ) -> Done {
        let mut done = Done::default();
        for id in sorted(ids) {
            let is_meant = |one: &StoredDeadLetter| {
                let is_taken =
                    to == DeadLetterStatus::Open && self.has_open(&one.endpoint, one.envelope.id);
                one.status == from && !is_taken
            };
            if !self.dead_letters.get(&id).is_some_and(is_meant) {
                continue;
            }
            if let Some(one) = self.dead_letters.get_mut(&id) {
                one.status = to;
                done.0.push(id);
                done.1.push(json!({
                    "id": id,
                    "message_id": one.envelope.id,
                    "message_type": one.envelope.message_type,
                    "endpoint": one.endpoint,
                }));
            }
        }
        done
    }

    /// Finds what holds the place of a dead letter.
    fn stub_of(&self, id: i64) -> Option<i64> {
        let dead = self.dead_letters.get(&id)?;
        let destination = format!("@{}", dead.endpoint);
        let key = dead.key.as_deref();
        self.outbox.stub(&destination, key, dead.envelope.id)
    }

    /// Writes the row of a redriven message.
    fn send_again(&mut self, id: i64, to: Option<&str>, now: Timestamp) {
        if let Some(dead) = self.dead_letters.get(&id) {
            let envelope = dead.envelope.clone();
            self.put_back(id, envelope, to, now);
        }
    }

    /// Writes a row for a dead letter: in the place that its stub held, else the last. One that
    /// goes elsewhere leaves its place to those behind it.
    fn put_back(&mut self, id: i64, envelope: Envelope, to: Option<&str>, now: Timestamp) {
        let Some(dead) = self.dead_letters.get(&id) else {
            return;
        };
        let key = dead.key.clone();
        let to = to.unwrap_or(&dead.endpoint).to_owned();
        if to != dead.endpoint {
            self.drop_stub(id, now);
        } else if let Some(stub) = self.stub_of(id) {
            return self.outbox.fill_stub(stub, envelope, now);
        }
        let mut known = self.routes.endpoints.values();
        let target = known.find(|target| target.name.as_str() == to);
        let row = NewRow {
            destination: format!("@{to}"),
            order: target.map_or(Order::Unordered, |target| target.order),
            envelope,
            key,
            due_at: now,
            expires_at: None,
            attempts: Vec::new(),
            timer: None,
        };
        // Born available: an operator's process handles nothing itself.
        self.outbox.insert(row, Birth::Available, now, now);
    }

    /// Writes a row for an endpoint, which stands in no line.
    fn send(&mut self, endpoint: &str, envelope: &Envelope, now: Timestamp) -> Done {
        let mut known = self.routes.endpoints.values();
        if !known.any(|target| target.name.as_str() == endpoint) {
            return Done::default();
        }
        let destination = format!("@{endpoint}");
        let row = NewRow {
            destination: destination.clone(),
            order: Order::Unordered,
            envelope: envelope.clone(),
            key: envelope.headers.get(headers::KEY).map(str::to_owned),
            due_at: now,
            expires_at: None,
            attempts: Vec::new(),
            timer: None,
        };
        self.outbox.insert(row, Birth::Available, now, now);
        let id = self.outbox.last_id();
        let detail = json!({
            "id": id,
            "message_id": envelope.id,
            "message_type": envelope.message_type,
            "destination": destination,
        });
        (vec![id], vec![detail])
    }

    /// Completes the audit entry by which a host was asked to move an instance.
    fn note_transition(&mut self, who: &str, done: &Transitioned) -> Done {
        let is_asked = |one: &&mut AuditEntry| {
            let asked = &one.detail[0];
            [TRANSITION, CANCEL].contains(&one.action.as_str())
                && one.who == who
                && asked["kind"] == *done.instance.kind
                && asked["key"] == *done.instance.key
                && asked["version"] == done.version
                && asked["after"].is_null()
        };
        let Some(entry) = self.audit.iter_mut().rev().find(is_asked) else {
            return Done::default();
        };
        if let (Value::Object(asked), Value::Object(outcome)) =
            (&mut entry.detail[0], done.outcome())
        {
            asked.extend(outcome);
        }
        (vec![done.after.version], Vec::new())
    }

    fn remove_subscription(&mut self, endpoint: &str, message_type: &str) -> Done {
        let mut known = self.subscriptions.keys();
        let is_it = |key: &&(String, crate::EndpointName)| {
            key.0 == message_type && key.1.as_str() == endpoint
        };
        let Some(key) = known.find(is_it).cloned() else {
            return Done::default();
        };
        self.subscriptions.remove(&key);
        self.routes_changed();
        let id = self.routes.endpoints.get(&key.1);
        let id = id.map(|target| i64::from(target.id.0));
        let detail = json!({ "endpoint": endpoint, "message_type": message_type });
        (id.into_iter().collect(), vec![detail])
    }

    fn remove_endpoint(&mut self, endpoint: &str) -> Done {
        let mut known = self.routes.endpoints.keys();
        let Some(name) = known.find(|name| name.as_str() == endpoint).cloned() else {
            return Done::default();
        };
        let destination = format!("@{endpoint}");
        let has_rows = self
            .outbox
            .stored(0)
            .any(|row| row.destination == destination);
        let has_dead = self
            .dead_letters
            .values()
            .any(|one| one.status == DeadLetterStatus::Open && one.endpoint == endpoint);
        if has_rows || has_dead {
            return Done::default();
        }
        self.subscriptions.retain(|(_, taker), _| *taker != name);
        let removed = self.routes.endpoints.remove(&name);
        self.routes_changed();
        let id = removed.map(|target| i64::from(target.id.0));
        (
            id.into_iter().collect(),
            vec![json!({ "endpoint": endpoint })],
        )
    }

    fn move_timers(&mut self, ids: &[i64], due: Option<Timestamp>, now: Timestamp) -> Done {
        let due = due.unwrap_or(now).max(now);
        let moved = sorted(ids).into_iter();
        of_timers(moved.filter_map(|id| self.outbox.move_timer(id, due, now)))
    }

    fn cancel_timers(&mut self, ids: &[i64], now: Timestamp) -> Done {
        let rows = sorted(ids).into_iter();
        let cancelled: Vec<_> = rows
            .filter_map(|id| self.outbox.cancel_timer(id, now))
            .collect();
        let timers = cancelled.iter().filter_map(|row| row.timer.as_ref());
        let mut owners: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for timer in timers {
            owners.entry(&timer.owner).or_default().push(&timer.name);
        }
        for (owner, names) in owners {
            if let Some(mut instance) = self.instance(owner) {
                instance.timers.retain(|name, _| !names.contains(&name));
                instance.version += 1;
                self.put_instance(instance, now);
            }
        }
        of_timers(cancelled.into_iter())
    }

    fn endpoint_id(&self, endpoint: &str) -> Option<i64> {
        let mut known = self.routes.endpoints.values();
        let target = known.find(|target| target.name.as_str() == endpoint)?;
        Some(i64::from(target.id.0))
    }

    fn pause_endpoint(&mut self, endpoint: &str, now: Timestamp) -> Done {
        let id = pause_id(endpoint);
        let (Some(number), None) = (self.endpoint_id(endpoint), self.instance(&id)) else {
            return Done::default();
        };
        self.put_pause(id, now);
        (vec![number], vec![json!({ "endpoint": endpoint })])
    }

    fn pause_transport(&mut self, transport: &str, now: Timestamp) -> Done {
        let id = transport_pause_id(transport);
        if self.instance(&id).is_some() {
            return Done::default();
        }
        self.put_pause(id, now);
        (vec![1], vec![json!({ "transport": transport })])
    }

    fn put_pause(&mut self, id: InstanceId, now: Timestamp) {
        self.put_instance(
            Instance {
                id,
                version: 1,
                status: InstanceStatus::Running,
                state: Some("paused".to_owned()),
                schema_version: 1,
                data: bytes::Bytes::from_static(b"{}"),
                timers: Default::default(),
                origin: None,
            },
            now,
        );
    }

    fn resume_endpoint(&mut self, endpoint: &str) -> Done {
        match self.instances.remove(&pause_id(endpoint)) {
            Some(_) => (
                self.endpoint_id(endpoint).into_iter().collect(),
                vec![json!({ "endpoint": endpoint })],
            ),
            None => Done::default(),
        }
    }

    fn change_schedule(&mut self, name: &str, verb: ScheduleVerb, now: Timestamp) -> Done {
        let id = schedule_id(name);
        let Some(mut schedule) = self.instance(&id) else {
            return Done::default();
        };
        let from = schedule.state.clone().unwrap_or_default();
        let mut detail = json!({ "schedule": name, "from": from });
        if verb == ScheduleVerb::Remove {
            self.instances.remove(&id);
            return (vec![schedule.version], vec![detail]);
        }
        let Some((_, to)) = verb.moves().into_iter().find(|(one, _)| *one == from) else {
            return Done::default();
        };
        detail["to"] = to.into();
        schedule.state = Some(to.to_owned());
        schedule.version += 1;
        let version = schedule.version;
        self.put_instance(schedule, now);
        (vec![version], vec![detail])
    }

    fn ask_host(&mut self, errand: &Errand, now: Timestamp) -> Done {
        let id = errand_id(&errand.endpoint);
        let is_about = |one: &StoredInstance| {
            let age = now.as_micros() - one.updated_at.as_micros();
            one.instance.status == InstanceStatus::Running && age <= ERRAND_STALE_MICROS
        };
        let is_busy = self.instances.get(&id).is_some_and(is_about);
        if self.endpoint_id(&errand.endpoint).is_none() || is_busy {
            return Done::default();
        }
        let version = self.version(&id) + 1;
        self.put_instance(
            Instance {
                id,
                version,
                status: InstanceStatus::Running,
                state: Some(ASKED.to_owned()),
                schema_version: 1,
                data: errand.to_bytes(),
                timers: Default::default(),
                origin: None,
            },
            now,
        );
        (vec![version], vec![errand.detail()])
    }

    fn routes_changed(&mut self) {
        self.routes.version += 1;
        self.routes.subscribers = self.subscribers();
    }
}

pub(super) fn sorted(ids: &[i64]) -> Vec<i64> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids
}

pub(super) fn summed(rows: impl Iterator<Item = StoredRow>) -> Done {
    rows.map(|row| {
        let detail = json!({
            "id": row.id,
            "message_id": row.envelope.id,
            "message_type": row.envelope.message_type,
            "destination": row.destination,
        });
        (row.id, detail)
    })
    .unzip()
}

fn of_timers(rows: impl Iterator<Item = StoredRow>) -> Done {
    rows.map(|row| {
        let detail = json!({
            "id": row.id,
            "message_id": row.envelope.id,
            "message_type": row.envelope.message_type,
            "timer": row.timer.map(|timer| timer.name),
        });
        (row.id, detail)
    })
    .unzip()
}
