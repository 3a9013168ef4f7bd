//! The commit call of the in-memory store, in the contract's fixed order of steps.

use super::database::Database;
use super::outbox::NewRow;
use crate::clock::Timestamp;
use crate::envelope::{Due, Identity, Outgoing};
use crate::error::StoreError;
use crate::id::InstanceId;
use crate::store::{Birth, CommitReport, Group, Instance, Place, Placement};
use crate::unit_of_work::{DeadLetter, InstanceChange, Outcome, RowKey, Source, UnitOfWork};

impl Database {
    /// Writes a group. Everything that may refuse does so before the first write.
    pub(super) fn commit(
        &mut self,
        group: &Group,
        now: Timestamp,
    ) -> Result<CommitReport, StoreError> {
        // Also where nothing was placed: a subscriber may have come since.
        let is_placed = group.units.iter().any(|unit| !unit.outgoing.is_empty());
        if is_placed && group.routes_version != self.routes.version {
            return Err(StoreError::StaleRoutes(Box::new(self.routes.clone())));
        }
        check(group)
            .and_then(|()| self.check_timers(group))
            .and_then(|()| self.check_labels(group))
            .map_err(|fact| StoreError::Refused(fact.into()))?;

        for settle in &group.settles {
            self.outbox.settle(settle, now);
        }
        let mut outcomes = Vec::with_capacity(group.units.len());
        for unit in &group.units {
            outcomes.push(self.accept(unit, now));
        }
        let is_winner = |index: usize| outcomes.get(index) == Some(&Outcome::Committed);
        let winners = || {
            let units = group.units.iter().enumerate();
            units.filter(|(index, _)| is_winner(*index))
        };
        self.put_labels(winners().map(|(_, unit)| unit));
        for (_, unit) in winners() {
            self.clear(unit, now);
        }
        let mut leased = Vec::with_capacity(group.placements.len());
        for placement in &group.placements {
            let row = if is_winner(placement.unit) {
                self.place(group, placement, now)
            } else {
                None
            };
            leased.push(row);
        }
        for (_, unit) in winners() {
            for entry in &unit.history {
                self.put_history(entry.clone(), now);
            }
            if let Some(dead) = &unit.failed {
                self.put_dead_letter(dead, now);
                let is_row = |source: &Source| matches!(source, Source::Row(_));
                if dead.held_key().is_some() && !unit.sources.iter().any(is_row) {
                    let destination = format!("@{}", dead.endpoint);
                    self.outbox.put_stub(destination, dead, now);
                }
            }
        }
        Ok(CommitReport { outcomes, leased })
    }

    /// Refuses a second row of a timer, as a unique index does: what is armed anew is disarmed by
    /// the same unit.
    fn check_timers(&self, group: &Group) -> Result<(), String> {
        for placement in &group.placements {
            let outgoing = outgoing_of(group, placement);
            let timer = outgoing.and_then(|outgoing| outgoing.timer.as_ref());
            let (Some(timer), Some(unit)) = (timer, group.units.get(placement.unit)) else {
                continue;
            };
            let Some(armed) = self.outbox.timer(&timer.owner, &timer.name) else {
                continue;
            };
            let is_disarmed = unit.instance.as_ref().is_some_and(|change| {
                change.id == timer.owner && change.disarmed.contains(&timer.name)
            });
            let is_answered = unit
                .sources
                .iter()
                .any(|source| matches!(source, Source::Row(key) if key.id == armed));
            if !is_disarmed && !is_answered && self.decide(unit) == Outcome::Committed {
                let (owner, name) = (&timer.owner, &timer.name);
                return Err(format!("timer `{name}` of {owner} is armed already"));
            }
        }
        Ok(())
    }

    /// Accepts a unit's sources and moves its instance, or writes nothing of it.
    ///
    /// Looking first and writing then is what a database does by taking back the inbox rows of
    /// those that did not move.
    fn accept(&mut self, unit: &UnitOfWork, now: Timestamp) -> Outcome {
        let outcome = self.decide(unit);
        if outcome != Outcome::Committed {
            return outcome;
        }
        for source in &unit.sources {
            if let Source::Broker {
                endpoint,
                message_id,
            } = source
            {
                self.inbox.insert((*message_id, *endpoint), now);
            }
        }
        if let Some(change) = &unit.instance {
            self.put_instance(moved(change, unit.sources.len()), now);
        }
        outcome
    }

    /// Says what becomes of a unit. Duplicate is decided before Conflict.
    pub(super) fn decide(&self, unit: &UnitOfWork) -> Outcome {
        let known = unit
            .sources
            .iter()
            .filter(|source| self.is_known(source))
            .count();
        let is_stale = |change: &InstanceChange| self.version(&change.id) != change.expected;
        match known {
            0 if unit.instance.as_ref().is_some_and(is_stale) => Outcome::Conflict,
            0 if unit.names_a_source_twice() => Outcome::Conflict,
            0 => Outcome::Committed,
            // A merged unit is all or none: where only a part was taken over, the rest is run
            // again.
            _ if known < unit.sources.len() => Outcome::Conflict,
            _ => Outcome::Duplicate,
        }
    }

    /// Says whether a source was taken over before.
    fn is_known(&self, source: &Source) -> bool {
        match source {
            Source::Broker {
                endpoint,
                message_id,
            } => self.inbox.contains_key(&(*message_id, *endpoint)),
            Source::Row(key) => !self.outbox.is_ours(*key),
        }
    }

    /// Removes the rows that a unit answers and the timers that it disarms, so that neither holds
    /// back what it sends.
    fn clear(&mut self, unit: &UnitOfWork, now: Timestamp) {
        if let Some(change) = &unit.instance {
            for name in &change.disarmed {
                self.outbox.disarm(&change.id, name, now);
            }
        }
        for source in &unit.sources {
            if let Source::Row(key) = source {
                let dead = unit.failed.as_deref();
                match dead.and_then(DeadLetter::held_key) {
                    Some(_) => self.outbox.hold(key.id, now),
                    None => self.outbox.remove(key.id, now),
                }
            }
        }
    }

    /// Writes one row of a winner and returns its key if it was born leased.
    fn place(&mut self, group: &Group, placement: &Placement, now: Timestamp) -> Option<RowKey> {
        let outgoing = outgoing_of(group, placement)?;
        let destination = placement.place.as_stored(&outgoing.envelope.message_type);
        let order = group.units[placement.unit].order_of(outgoing, placement.place.order());
        if let (Identity::Given, Place::Endpoint(target)) = (outgoing.identity, &placement.place) {
            let key = (outgoing.envelope.id, target.id);
            if self.inbox.contains_key(&key) {
                return None;
            }
            self.inbox.insert(key, now);
        }
        let due_at = match outgoing.due {
            Due::Now => now,
            Due::After(delay) => now.plus(delay),
            Due::At(time) => time,
        };
        let row = NewRow {
            destination,
            order,
            envelope: outgoing.envelope.clone(),
            key: outgoing.key.clone(),
            due_at,
            expires_at: outgoing.expires_after.map(|wanted| due_at.plus(wanted)),
            attempts: outgoing.attempts.clone(),
            timer: outgoing.timer.clone(),
        };
        let lease_end = now.plus(group.lease);
        self.outbox.insert(row, placement.birth, now, lease_end)
    }
}

fn outgoing_of<'a>(group: &'a Group, placement: &Placement) -> Option<&'a Outgoing> {
    let unit = group.units.get(placement.unit)?;
    unit.outgoing.get(placement.outgoing)
}

/// Returns the instance as a change leaves it: every message that it handles moves its version.
fn moved(change: &InstanceChange, source_count: usize) -> Instance {
    let steps = i64::try_from(source_count.max(1)).unwrap_or(i64::MAX);
    Instance {
        id: change.id.clone(),
        version: change.expected.saturating_add(steps),
        status: change.status,
        state: change.state.as_deref().map(str::to_owned),
        schema_version: change.schema_version,
        data: change.data.clone(),
        timers: change.timers.clone(),
        origin: change.origin.clone(),
    }
}

/// Refuses what a strict database refuses: a NUL character in a text column, and a placement of
/// something that is not in the group.
fn check(group: &Group) -> Result<(), String> {
    for placement in &group.placements {
        let Some(outgoing) = outgoing_of(group, placement) else {
            return Err(format!(
                "placement names message {} of unit {}, which is not in the group",
                placement.outgoing, placement.unit
            ));
        };
        if placement.birth == Birth::Leased && group.lease.is_zero() {
            return Err("a row born leased needs a lease longer than nothing".to_owned());
        }
        if let Place::Address { address, .. } = &placement.place {
            check_text("address", address)?;
        }
        check_text("message type", &outgoing.envelope.message_type)?;
        check_text("key", outgoing.key.as_deref().unwrap_or_default())?;
        if let Some(timer) = &outgoing.timer {
            check_text("timer name", &timer.name)?;
            check_instance(&timer.owner)?;
        }
    }
    for unit in &group.units {
        if let Some(change) = &unit.instance {
            check_instance(&change.id)?;
            check_text("state", change.state.as_deref().unwrap_or_default())?;
            for label in change.labels.iter().flatten() {
                check_text("label", &label.name)?;
                check_text("label", &label.value)?;
            }
        }
        for entry in &unit.history {
            check_text("message type", &entry.message_type)?;
        }
        if let Some(dead) = &unit.failed {
            check_text("key", dead.key.as_deref().unwrap_or_default())?;
        }
    }
    Ok(())
}

fn check_instance(id: &InstanceId) -> Result<(), String> {
    check_text("instance kind", &id.kind)?;
    check_text("instance key", &id.key)
}

fn check_text(name: &str, text: &str) -> Result<(), String> {
    if text.contains('\0') {
        return Err(format!("{name} {text:?} contains a NUL character"));
    }
    Ok(())
}
