//! Each thing that was seen, told to the models that it concerns.

use std::collections::{BTreeMap, BTreeSet};

use sagabus_core::attempt::failure_count;
use sagabus_core::store::{ClaimedRow, Group, Place, Placement};
use sagabus_core::unit_of_work::{Attempt, Outcome, RowKey, Settle, Source, UnitOfWork};
use sagabus_core::{InstanceId, MessageId};
use sagabus_model::{Call, Decided, Held, Message, OfMessage, OfRow, Outgoing, Written, Wrote};

use super::known::{Case, Known, report};
use crate::seen::{Answer, Ended, Seen};

/// One message or row, and who has it in hand.
#[derive(Debug)]
pub(super) struct Track<T> {
    model: T,
    hands: Vec<(Held, String)>,
}

impl<T> Track<T> {
    fn new(model: T) -> Self {
        let hands = Vec::new();
        Self { model, hands }
    }

    fn deliveries_of(&self, process: &str) -> Vec<Held> {
        let mut own = self.of(process);
        own.retain(|held| *held < ROWS);
        own
    }

    fn of(&self, process: &str) -> Vec<Held> {
        let own = self.hands.iter().filter(|(_, owner)| owner == process);
        own.map(|(held, _)| *held).collect()
    }
}

/// The models of everything that is followed.
#[derive(Debug)]
pub(super) struct Walk<'s> {
    known: Known<'s>,
    pub(super) messages: BTreeMap<Case, Track<Message>>,
    pub(super) rows: BTreeMap<MessageId, Track<Outgoing>>,
    delivered: BTreeSet<MessageId>,
    versions: BTreeMap<InstanceId, i64>,
    claims: BTreeMap<Held, Vec<RowKey>>,
    gone: BTreeSet<String>,
    pub(super) steps: u64,
}

/// From here on numbers of what is in hand are those of rows; deliveries count from one.
const ROWS: Held = 1 << 63;

fn held(row: RowKey) -> Held {
    ROWS | (row.id.unsigned_abs() << 16) | u64::from(row.epoch.unsigned_abs())
}

fn failures(attempts: &[Attempt]) -> u8 {
    u8::try_from(failure_count(attempts)).unwrap_or(u8::MAX)
}

fn decided(outcome: Outcome) -> Decided {
    match outcome {
        Outcome::Committed => Decided::Committed,
        Outcome::Duplicate => Decided::Duplicate,
        Outcome::Conflict => Decided::Conflict,
    }
}

/// What the store decided on a unit, where it decided.
fn outcome(ended: &Ended, unit: usize) -> Option<Outcome> {
    match ended {
        Ended::Heard(report) | Ended::Unheard(report) | Ended::Landed(report) => {
            report.outcomes.get(unit).copied()
        }
        Ended::Unmade | Ended::Later => None,
    }
}

impl<'s> Walk<'s> {
    pub(super) fn new(known: Known<'s>) -> Self {
        Self {
            known,
            messages: BTreeMap::new(),
            rows: BTreeMap::new(),
            delivered: BTreeSet::new(),
            versions: BTreeMap::new(),
            claims: BTreeMap::new(),
            gone: BTreeSet::new(),
            steps: 0,
        }
    }

    pub(super) fn see(&mut self, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::Got {
                process,
                held,
                endpoint,
                id,
            } => {
                let case = (*id, endpoint.clone());
                self.begin(&case, false);
                self.take(&case, process, *held, &OfMessage::Received(*held))
            }
            Seen::Answered { process, .. } | Seen::Published { process, .. }
                if self.gone.contains(process) =>
            {
                Ok(())
            }
            Seen::Answered { held, how, .. } => self.answered(*held, *how),
            Seen::Called {
                process,
                group,
                ended,
            } => self.called(process, group, ended),
            Seen::Claimed {
                process,
                number,
                rows,
            } => {
                let keys = rows.iter().map(|row| row.row).collect();
                self.claims.insert(*number, keys);
                rows.iter().try_for_each(|row| self.claimed(process, row))
            }
            Seen::ClaimLost(number) => {
                let keys = self.claims.remove(number).unwrap_or_default();
                keys.into_iter().try_for_each(|row| self.row_lost(row))
            }
            Seen::Published { process, id, how } => {
                let Some(track) = self.rows.get_mut(id) else {
                    return Ok(());
                };
                self.steps += 1;
                let held = track.of(process);
                track.model.see(&OfRow::Published(held, *how))
            }
            Seen::Gone { process } => self.end(process),
        }
    }

    fn begin(&mut self, case: &Case, is_row: bool) {
        if self.messages.contains_key(case) {
            return;
        }
        let instance = self.known.instance_of.get(case);
        let version = instance.and_then(|id| self.versions.get(id)).copied();
        let message = Message::new(is_row, version.unwrap_or_default());
        self.messages.insert(case.clone(), Track::new(message));
    }

    /// Puts a message into a process's hands.
    fn take(
        &mut self,
        case: &Case,
        process: &str,
        held: Held,
        seen: &OfMessage,
    ) -> Result<(), String> {
        let Some(track) = self.messages.get_mut(case) else {
            return Ok(());
        };
        track.hands.push((held, process.to_owned()));
        self.steps += 1;
        track.model.see(seen)
    }

    fn tell(&mut self, case: &Case, seen: &OfMessage) -> Result<(), String> {
        let Some(track) = self.messages.get_mut(case) else {
            return Ok(());
        };
        self.steps += 1;
        let told = track.model.see(seen);
        told.map_err(|error| format!("{case:?} {seen:?}: {error}"))
    }

    fn answered(&mut self, held: Held, how: Answer) -> Result<(), String> {
        let seen = match how {
            Answer::Acked => OfMessage::Acked(held, true),
            Answer::AckedUnheard => OfMessage::Acked(held, false),
            Answer::GivenBack => OfMessage::LetGo(held),
        };
        let holds = |track: &Track<Message>| track.hands.iter().any(|(one, _)| *one == held);
        let found = self.messages.iter().find(|(_, track)| holds(track));
        let Some(case) = found.map(|(case, _)| case.clone()) else {
            return Ok(());
        };
        if let Some(track) = self.messages.get_mut(&case) {
            track.hands.retain(|(one, _)| *one != held);
        }
        self.tell(&case, &seen)
    }

    fn claimed(&mut self, process: &str, row: &ClaimedRow) -> Result<(), String> {
        let held = held(row.row);
        if let Some(case) = self.known.local(row.row.id) {
            self.begin(&case, true);
            let seen = OfMessage::Claimed(held, row.row.epoch, row.failures);
            return self.take(&case, process, held, &seen);
        }
        let Some(track) = self.rows.get_mut(&row.envelope.id) else {
            return Ok(());
        };
        self.steps += 1;
        track.hands.push((held, process.to_owned()));
        track.model.see(&OfRow::Claimed(held, row.row.epoch))
    }

    /// Nobody knows that it claimed a row.
    fn row_lost(&mut self, row: RowKey) -> Result<(), String> {
        if let Some(case) = self.known.local(row.id) {
            return self.tell(&case, &OfMessage::Died(held(row)));
        }
        let id = self.known.message(row.id);
        match id.and_then(|id| self.rows.get_mut(&id)) {
            Some(track) => track.model.see(&OfRow::LetGo(held(row))),
            None => Ok(()),
        }
    }

    /// Whatever a process had in hand, it has no more.
    fn end(&mut self, process: &str) -> Result<(), String> {
        self.gone.insert(process.to_owned());
        for track in self.messages.values_mut() {
            for held in track.of(process) {
                track.model.see(&OfMessage::Died(held))?;
            }
            track.hands.retain(|(_, owner)| owner != process);
        }
        for track in self.rows.values_mut() {
            for held in track.of(process) {
                track.model.see(&OfRow::LetGo(held))?;
            }
            track.hands.retain(|(_, owner)| owner != process);
        }
        Ok(())
    }

    fn called(&mut self, process: &str, group: &Group, ended: &Ended) -> Result<(), String> {
        for settle in &group.settles {
            self.settled(settle, ended)?;
        }
        for (at, unit) in group.units.iter().enumerate() {
            self.unit(process, unit, outcome(ended, at), ended)?;
            if let (Some(change), Some(Outcome::Committed)) = (&unit.instance, outcome(ended, at)) {
                self.moved(unit, &change.id)?;
            }
        }
        for (at, placement) in group.placements.iter().enumerate() {
            self.placed(process, group, at, placement, ended)?;
        }
        Ok(())
    }

    fn settled(&mut self, settle: &Settle, ended: &Ended) -> Result<(), String> {
        match settle {
            Settle::Release { row, attempts, .. } => {
                let wrote = Wrote::Released(attempts.as_deref().map(failures));
                match self.known.local(row.id) {
                    Some(case) => {
                        let seen = seen_of(vec![held(*row)], wrote, None, ended, true);
                        self.tell(&case, &seen)
                    }
                    None => self.row_settled(*row, ended, OfRow::GivenBack(held(*row))),
                }
            }
            // What is kept of it is for people: nothing that the models have.
            Settle::Delete(row) | Settle::Keep { row, .. } => {
                self.row_settled(*row, ended, OfRow::Deleted(held(*row)))
            }
            // A row that runs alone is counted; nothing that the models have.
            Settle::StartSolo(_) => Ok(()),
            Settle::Park { .. } => Err("a row is parked, which no model has".to_owned()),
        }
    }

    /// A settle of a broker's row, when it is carried out.
    fn row_settled(&mut self, row: RowKey, ended: &Ended, seen: OfRow) -> Result<(), String> {
        let id = self.known.message(row.id);
        let Some(track) = id.and_then(|id| self.rows.get_mut(&id)) else {
            return Ok(());
        };
        if *ended == Ended::Later {
            // It is the server's now: the end of its process does not stop it.
            track.hands.retain(|(one, _)| *one != held(row));
        }
        if report(ended).is_none() {
            return Ok(());
        }
        self.steps += 1;
        track.model.see(&seen)
    }

    fn unit(
        &mut self,
        process: &str,
        unit: &UnitOfWork,
        outcome: Option<Outcome>,
        ended: &Ended,
    ) -> Result<(), String> {
        let is_alone = unit.sources.len() == 1;
        for source in &unit.sources {
            let Some(case) = self.known.case(source) else {
                continue;
            };
            let Some(track) = self.messages.get(&case) else {
                continue;
            };
            let hands = match source {
                Source::Row(row) => vec![held(*row)],
                Source::Broker { .. } => track.deliveries_of(process),
            };
            let seen = seen_of(hands, wrote(unit, &case), outcome, ended, is_alone);
            self.tell(&case, &seen)?;
            let is_delivered = matches!(source, Source::Broker { .. })
                && outcome == Some(Outcome::Committed)
                && self.delivered.insert(case.0);
            if let Some(track) = self.rows.get_mut(&case.0).filter(|_| is_delivered) {
                self.steps += 1;
                track.model.see(&OfRow::Delivered)?;
            }
        }
        Ok(())
    }

    /// A unit has moved an instance: once for each of its messages.
    fn moved(&mut self, unit: &UnitOfWork, instance: &InstanceId) -> Result<(), String> {
        let by = i64::try_from(unit.sources.len()).unwrap_or(i64::MAX);
        *self.versions.entry(instance.clone()).or_default() += by;
        let own: Vec<_> = unit
            .sources
            .iter()
            .filter_map(|one| self.known.case(one))
            .collect();
        let all = self
            .known
            .instance_of
            .iter()
            .filter(|(_, id)| *id == instance);
        let all: Vec<_> = all.map(|(case, _)| case.clone()).collect();
        for case in all {
            let by = by - i64::from(own.contains(&case));
            if by > 0 {
                self.tell(&case, &OfMessage::Moved(by))?;
            }
        }
        Ok(())
    }

    /// What a unit sent: its own copy, a row for an endpoint, or one for the broker.
    fn placed(
        &mut self,
        process: &str,
        group: &Group,
        at: usize,
        placement: &Placement,
        ended: &Ended,
    ) -> Result<(), String> {
        let unit = &group.units[placement.unit];
        let one = &unit.outgoing[placement.outgoing];
        let id = one.envelope.id;
        let outcome = outcome(ended, placement.unit);
        let leased = report(ended).and_then(|report| *report.leased.get(at)?);
        match &placement.place {
            Place::Address { .. } if !unit.sources.is_empty() => {
                self.written(process, id, outcome, leased, ended)
            }
            Place::Endpoint(target)
                if outcome == Some(Outcome::Committed) && !self.known.is_timer(id) =>
            {
                let case = (id, target.name.clone());
                self.begin(&case, true);
                let Some(row) = leased else {
                    return Ok(());
                };
                let failures = i32::from(failures(&one.attempts));
                let seen = OfMessage::Claimed(held(row), row.epoch, failures);
                self.take(&case, process, held(row), &seen)?;
                match ended {
                    Ended::Heard(_) => Ok(()),
                    _ => self.tell(&case, &OfMessage::Died(held(row))),
                }
            }
            _ => Ok(()),
        }
    }

    /// A row for the broker was with the store.
    fn written(
        &mut self,
        process: &str,
        id: MessageId,
        outcome: Option<Outcome>,
        leased: Option<RowKey>,
        ended: &Ended,
    ) -> Result<(), String> {
        let written = match (outcome, ended) {
            (Some(Outcome::Committed), Ended::Heard(_)) => Written::Heard(leased.map(held)),
            (Some(Outcome::Committed), _) => Written::Unheard(leased.is_some()),
            (None, _) => Written::Unmade,
            // Not made before: it is handled again, and sends other messages.
            (Some(_), _) if !self.rows.contains_key(&id) => return Ok(()),
            (Some(Outcome::Duplicate), Ended::Heard(_)) => Written::Again,
            _ => return Ok(()),
        };
        let track = self.rows.entry(id);
        let track = track.or_insert_with(|| Track::new(Outgoing::default()));
        if let Written::Heard(Some(held)) = written {
            track.hands.push((held, process.to_owned()));
        }
        self.steps += 1;
        let told = track.model.see(&OfRow::Written(written));
        told.map_err(|error| format!("row of {id} {written:?}: {error}"))
    }

    /// Counts what was lost sight of.
    pub(super) fn lost(&self) -> u64 {
        let messages = self.messages.values().filter(|one| one.model.is_lost());
        let rows = self.rows.values().filter(|one| one.model.is_lost());
        (messages.count() + rows.count()) as u64
    }

    /// Finds what did not come to its end.
    pub(super) fn unfinished(&self) -> Option<String> {
        let message = self.messages.iter().find(|(_, it)| !it.model.may_be_done());
        let message = message.map(|(case, _)| format!("{case:?} has not one end"));
        let is_open = |(id, track): &(&MessageId, &Track<Outgoing>)| {
            self.delivered.contains(id) && !track.model.may_be_done()
        };
        let row = || self.rows.iter().find(is_open);
        message.or_else(|| row().map(|(id, _)| format!("row of {id} is not done")))
    }
}

/// What a unit does with one of the messages that it answers.
fn wrote(unit: &UnitOfWork, case: &Case) -> Wrote {
    let copy = unit.outgoing.iter().find(|one| one.envelope.id == case.0);
    match (&unit.failed, copy) {
        (Some(_), _) => Wrote::Dead,
        (None, Some(copy)) => Wrote::TakenOver(failures(&copy.attempts)),
        (None, None) => Wrote::Effect(unit.instance.as_ref().map(|change| change.expected)),
    }
}

fn seen_of(
    hands: Vec<Held>,
    wrote: Wrote,
    outcome: Option<Outcome>,
    ended: &Ended,
    is_alone: bool,
) -> OfMessage {
    // A settle is not answered for.
    let decided = outcome.map_or(Decided::Committed, decided);
    let call = match ended {
        Ended::Heard(_) => Call::Heard(decided),
        Ended::Unheard(_) => Call::Unheard(decided),
        Ended::Unmade => Call::Unmade,
        Ended::Later => Call::Later,
        Ended::Landed(_) => return OfMessage::Landed(wrote, decided, is_alone),
    };
    OfMessage::Called(hands, wrote, call, is_alone)
}
