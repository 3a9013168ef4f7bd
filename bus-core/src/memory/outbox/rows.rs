//! The outbox of the in-memory store: rows, and the three indexes by which they are found.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::time::Duration;

use super::sent::Sent;
use crate::attempt;
use crate::clock::{self, Timestamp};
use crate::endpoint::Order;
use crate::envelope::{Envelope, Timer};
use crate::id::{InstanceId, MessageId};
use crate::store::{Birth, Claim, ClaimFrom, ClaimedRow, Scan};
use crate::unit_of_work::{Attempt, Reason, RowKey, Settle, Start};

/// How long an ordered row waits behind an older one of its key before it is looked at again. The
/// settle of the older one pulls it forward, so this only bounds the harm of a lost pull.
const FOLLOWER_DELAY: Duration = Duration::from_secs(60);

/// How far back a hot scan looks.
const HOT_WINDOW: Duration = Duration::from_secs(60);

/// A row that is to be written.
pub(in crate::memory) struct NewRow {
    pub(in crate::memory) destination: String,
    pub(in crate::memory) order: Order,
    pub(in crate::memory) envelope: Envelope,
    pub(in crate::memory) key: Option<String>,
    pub(in crate::memory) due_at: Timestamp,
    pub(in crate::memory) expires_at: Option<Timestamp>,
    pub(in crate::memory) attempts: Vec<Attempt>,
    pub(in crate::memory) timer: Option<Timer>,
}

/// A row as it is kept.
pub(super) struct Row {
    pub(super) new: NewRow,
    /// Due time, back-off and lease in one.
    pub(super) available_at: Timestamp,
    pub(super) epoch: i32,
    pub(super) starts: i32,
    pub(super) failures: i32,
    pub(super) solo_starts: i32,
    /// Why an operator has to decide, if one has to.
    pub(super) parked: Option<&'static str>,
    pub(super) created_at: Timestamp,
}

impl Row {
    pub(super) fn is_stub(&self) -> bool {
        self.available_at == Timestamp::NEVER
    }

    /// Returns the line that the row stands in: the rows of its destination and key, where order
    /// is promised.
    pub(super) fn line(&self) -> Option<(String, String)> {
        match (self.new.order, &self.new.key) {
            (Order::PerKey, Some(key)) => Some((self.new.destination.clone(), key.clone())),
            _ => None,
        }
    }

    fn record(&mut self, attempts: &[Attempt]) {
        self.new.attempts = attempts.to_vec();
        self.failures = failure_count(attempts);
    }
}

fn failure_count(attempts: &[Attempt]) -> i32 {
    i32::try_from(attempt::failure_count(attempts)).unwrap_or(i32::MAX)
}

/// All rows.
#[derive(Default)]
pub(in crate::memory) struct Outbox {
    pub(super) last_id: i64,
    pub(super) rows: BTreeMap<i64, Row>,
    /// Destination to the rows that wait, by the time at which they may be taken.
    pub(super) waiting: BTreeMap<String, BTreeSet<(Timestamp, i64)>>,
    /// Destination and key to the rows of which only the oldest may move. Parked rows hold back
    /// nobody and are in no line.
    pub(super) lines: HashMap<(String, String), BTreeSet<i64>>,
    pub(super) timers: HashMap<(InstanceId, String), i64>,
    /// What brokers took, by the ids of its rows.
    pub(super) sent: BTreeMap<i64, Sent>,
    pub(super) has_news: bool,
}

impl Outbox {
    /// Says whether rows became available since it was last asked.
    pub(in crate::memory) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    pub(in crate::memory) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(in crate::memory) fn parked_count(&self) -> usize {
        let parked = self.rows.values().filter(|row| row.parked.is_some());
        parked.count()
    }

    /// Counts the rows whose time has come, parked ones aside.
    pub(in crate::memory) fn due_count(&self, now: Timestamp) -> usize {
        let is_due = |row: &&Row| row.parked.is_none() && row.new.due_at <= now;
        self.rows.values().filter(is_due).count()
    }

    /// Says whether rows of a key wait where order is promised.
    pub(in crate::memory) fn has_line(&self, destination: &str, key: &str) -> bool {
        self.lines
            .contains_key(&(destination.to_owned(), key.to_owned()))
    }

    /// Says whether a row of this message is there.
    pub(in crate::memory) fn has_message(&self, destination: &str, id: MessageId) -> bool {
        let is_meant = |row: &Row| row.new.envelope.id == id && row.new.destination == destination;
        self.rows.values().any(is_meant)
    }

    /// Says whether a row is there under this epoch.
    pub(in crate::memory) fn is_current(&self, key: RowKey) -> bool {
        self.rows
            .get(&key.id)
            .is_some_and(|row| row.epoch == key.epoch)
    }

    /// Says whether a row is there under this epoch, and not an operator's.
    pub(in crate::memory) fn is_ours(&self, key: RowKey) -> bool {
        let row = self.rows.get(&key.id);
        row.is_some_and(|row| row.epoch == key.epoch && row.parked.is_none())
    }

    /// Writes a row and returns its key if it was born leased.
    pub(in crate::memory) fn last_id(&self) -> i64 {
        self.last_id
    }

    pub(in crate::memory) fn insert(
        &mut self,
        new: NewRow,
        birth: Birth,
        now: Timestamp,
        lease_end: Timestamp,
    ) -> Option<RowKey> {
        self.last_id += 1;
        let id = self.last_id;
        let failures = failure_count(&new.attempts);
        let mut row = Row {
            available_at: new.due_at.max(now),
            epoch: 0,
            // Each failure that it brings along was a start whose end is known.
            starts: failures,
            failures,
            solo_starts: 0,
            parked: match birth {
                Birth::Parked(reason) => Some(reason.as_str()),
                _ => None,
            },
            created_at: now,
            new,
        };
        if let Some(timer) = &row.new.timer {
            let key = (timer.owner.clone(), timer.name.clone());
            self.timers.insert(key, id);
        }
        if row.parked.is_some() {
            self.rows.insert(id, row);
            return None;
        }
        let is_follower = row
            .line()
            .is_some_and(|line| self.lines.contains_key(&line));
        let is_due = row.available_at <= now;
        let is_leased = birth == Birth::Leased && is_due && !is_follower;
        if is_leased {
            (row.epoch, row.available_at) = (1, lease_end);
            row.starts += 1;
        } else if is_follower {
            row.available_at = row.available_at.max(now.plus(FOLLOWER_DELAY));
        } else {
            self.has_news |= is_due;
        }
        if let Some(line) = row.line() {
            self.lines.entry(line).or_default().insert(id);
        }
        self.wait(&row.new.destination, row.available_at, id);
        self.rows.insert(id, row);
        is_leased.then_some(RowKey { id, epoch: 1 })
    }

    /// Returns the row of a timer that is armed.
    pub(in crate::memory) fn timer(&self, owner: &InstanceId, name: &str) -> Option<i64> {
        let key = (owner.clone(), name.to_owned());
        self.timers.get(&key).copied()
    }

    /// Removes the row of a timer, if it is still there.
    pub(in crate::memory) fn disarm(&mut self, owner: &InstanceId, name: &str, now: Timestamp) {
        if let Some(id) = self.timer(owner, name) {
            self.remove(id, now);
        }
    }

    /// Removes a row and pulls the next of its key forward.
    pub(in crate::memory) fn remove(&mut self, id: i64, now: Timestamp) {
        let Some(row) = self.rows.remove(&id) else {
            return;
        };
        if let Some(timer) = &row.new.timer {
            self.timers
                .remove(&(timer.owner.clone(), timer.name.clone()));
        }
        self.step_out(id, &row, now);
    }

    /// Carries out a settle, if its row is still there under its epoch.
    pub(in crate::memory) fn settle(&mut self, settle: &Settle, now: Timestamp) {
        let (Settle::Delete(key)
        | Settle::Release { row: key, .. }
        | Settle::Park { row: key, .. }
        | Settle::Keep { row: key, .. }
        | Settle::StartSolo(key)) = settle;
        if !self.is_current(*key) {
            return;
        }
        match settle {
            Settle::Delete(key) => self.remove(key.id, now),
            Settle::Keep { row, kept_for } => self.keep(row.id, *kept_for, now),
            Settle::Release {
                row,
                after,
                attempts,
                start,
            } => {
                self.change(row.id, |row| {
                    if let Some(attempts) = attempts {
                        row.record(attempts);
                        row.solo_starts = 0;
                    }
                    if *start == Start::GivenBack {
                        row.starts -= 1;
                    }
                    // Also bounds what a group in doubt gives back when it is settled again.
                    row.starts = row.starts.max(row.failures);
                });
                self.move_to(row.id, now.plus(*after));
                self.has_news |= after.is_zero();
            }
            Settle::Park {
                row,
                reason,
                attempts,
            } => self.park(row.id, *reason, attempts, now),
            Settle::StartSolo(key) => self.change(key.id, |row| row.solo_starts += 1),
        }
    }

    /// Moves the leases of rows that are still under their epoch, and counts them.
    pub(in crate::memory) fn extend(&mut self, keys: &[RowKey], lease_end: Timestamp) -> u64 {
        let mut count = 0;
        for key in keys {
            if self.is_ours(*key) {
                self.move_to(key.id, lease_end);
                count += 1;
            }
        }
        count
    }

    pub(in crate::memory) fn claim(&mut self, claim: &Claim, now: Timestamp) -> Vec<ClaimedRow> {
        let mut wanted = Vec::new();
        let mut in_all = u32::MAX;
        match &claim.from {
            ClaimFrom::Endpoints(endpoints) => {
                wanted.extend(
                    endpoints
                        .iter()
                        .map(|(name, limit)| (format!("@{name}"), *limit)),
                );
            }
            ClaimFrom::Transport {
                name,
                limit,
                per_address,
                bounds,
            } => {
                in_all = *limit;
                let of = |to: &str| {
                    let bound = bounds.iter().find(|(address, _)| address == to);
                    bound.map_or(*per_address, |(_, bound)| *bound.min(per_address))
                };
                let carried = self.waiting.keys().filter(|to| name.carries(to));
                wanted.extend(carried.map(|to| (to.clone(), of(to))));
            }
        }
        let mut claimed = Vec::new();
        for (destination, limit) in wanted {
            let room = (in_all as usize).saturating_sub(claimed.len());
            let most = room.min(limit as usize);
            for id in self.due(&destination, most, claim.scan, now) {
                self.change(id, |row| {
                    row.epoch += 1;
                    row.starts += 1;
                });
                self.move_to(id, now.plus(claim.lease));
                claimed.extend(self.rows.get(&id).map(|row| claimed_row(id, row, now)));
            }
        }
        claimed
    }

    /// Lists rows of a destination that may be taken, and defers those that have to wait for an
    /// older one of their key.
    fn due(&mut self, destination: &str, most: usize, scan: Scan, now: Timestamp) -> Vec<i64> {
        let earliest = match scan {
            Scan::Hot => Timestamp::from_micros(now.as_micros() - clock::micros(HOT_WINDOW)),
            Scan::Cold => Timestamp::from_micros(i64::MIN),
        };
        let Some(waiting) = self.waiting.get(destination) else {
            return Vec::new();
        };
        let range = (
            Bound::Included((earliest, i64::MIN)),
            Bound::Included((now, i64::MAX)),
        );
        let (mut taken, mut deferred) = (Vec::new(), Vec::new());
        for (_, id) in waiting.range(range) {
            if taken.len() == most {
                break;
            }
            let list = if self.is_first(*id) {
                &mut taken
            } else {
                &mut deferred
            };
            list.push(*id);
        }
        for id in deferred {
            self.move_to(id, now.plus(FOLLOWER_DELAY));
        }
        taken
    }

    /// Says whether no older row of its key goes first.
    fn is_first(&self, id: i64) -> bool {
        let line = self.rows.get(&id).and_then(Row::line);
        line.and_then(|line| self.lines.get(&line))
            .and_then(BTreeSet::first)
            .is_none_or(|first| *first == id)
    }

    fn park(&mut self, id: i64, reason: Reason, attempts: &[Attempt], now: Timestamp) {
        let Some(mut row) = self.rows.remove(&id) else {
            return;
        };
        self.step_out(id, &row, now);
        row.record(attempts);
        row.parked = Some(reason.as_str());
        self.rows.insert(id, row);
    }

    pub(super) fn change(&mut self, id: i64, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.rows.get_mut(&id) {
            change(row);
        }
    }

    /// Changes when a row may be taken.
    pub(super) fn move_to(&mut self, id: i64, available_at: Timestamp) {
        let Some(row) = self.rows.get_mut(&id) else {
            return;
        };
        let former = std::mem::replace(&mut row.available_at, available_at);
        if row.parked.is_some() {
            return;
        }
        let destination = row.new.destination.clone();
        self.unwait(&destination, former, id);
        self.wait(&destination, available_at, id);
    }

    /// Takes a row out of its destination and its line, and pulls the next of its key forward, but
    /// never before that one's own time.
    pub(super) fn step_out(&mut self, id: i64, row: &Row, now: Timestamp) {
        self.unwait(&row.new.destination, row.available_at, id);
        let Some(line) = row.line() else {
            return;
        };
        let Some(members) = self.lines.get_mut(&line) else {
            return;
        };
        members.remove(&id);
        let Some(next) = members.first().copied() else {
            self.lines.remove(&line);
            return;
        };
        let Some(follower) = self.rows.get(&next) else {
            return;
        };
        // One that was claimed before is leased or backs off: its time is its own; a redriven one
        // was claimed, but not in this life. A stub is never pulled.
        if (follower.epoch == 0 || follower.starts == 0) && !follower.is_stub() {
            let due_at = follower.new.due_at.max(now);
            self.has_news |= due_at <= now;
            self.move_to(next, due_at);
        }
    }

    pub(super) fn wait(&mut self, destination: &str, available_at: Timestamp, id: i64) {
        match self.waiting.get_mut(destination) {
            Some(waiting) => {
                waiting.insert((available_at, id));
            }
            None => {
                let waiting = BTreeSet::from([(available_at, id)]);
                self.waiting.insert(destination.to_owned(), waiting);
            }
        }
    }

    fn unwait(&mut self, destination: &str, available_at: Timestamp, id: i64) {
        if let Some(waiting) = self.waiting.get_mut(destination) {
            waiting.remove(&(available_at, id));
            if waiting.is_empty() {
                self.waiting.remove(destination);
            }
        }
    }
}

fn claimed_row(id: i64, row: &Row, now: Timestamp) -> ClaimedRow {
    ClaimedRow {
        row: RowKey {
            id,
            epoch: row.epoch,
        },
        destination: row.new.destination.clone(),
        envelope: row.new.envelope.clone(),
        key: row.new.key.clone(),
        starts: row.starts,
        failures: row.failures,
        solo_starts: row.solo_starts,
        attempts: row.new.attempts.clone(),
        timer: row.new.timer.clone(),
        is_expired: row.new.expires_at.is_some_and(|end| end <= now),
    }
}
