//! The outbox of the in-memory store: rows, and the three indexes by which they are found.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use crate::admin::{StoredRow, cut};
use crate::attempt;
use crate::backlog::{Backlog, Measure, Wanted};
use crate::clock::{self, Timestamp};
use crate::endpoint::{EndpointName, Order};
use crate::envelope::{Envelope, Timer};
use crate::headers::Headers;
use crate::id::{InstanceId, MessageId};
use crate::store::{Birth, Claim, ClaimFrom, ClaimedRow, Scan, Target};
use crate::unit_of_work::{Attempt, DeadLetter, Reason, RowKey, Settle, Start};

/// How long an ordered row waits behind an older one of its key before it is looked at again. The
/// settle of the older one pulls it forward, so this only bounds the harm of a lost pull.
const FOLLOWER_DELAY: Duration = Duration::from_secs(60);

/// How far back a hot scan looks.
const HOT_WINDOW: Duration = Duration::from_secs(60);

/// A row that is to be written.
pub(super) struct NewRow {
    pub(super) destination: String,
    pub(super) order: Order,
    pub(super) envelope: Envelope,
    pub(super) key: Option<String>,
    pub(super) due_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) timer: Option<Timer>,
}

/// A row as it is kept.
struct Row {
    new: NewRow,
    /// Due time, back-off and lease in one.
    available_at: Timestamp,
    epoch: i32,
    starts: i32,
    failures: i32,
    solo_starts: i32,
    /// Why an operator has to decide, if one has to.
    parked: Option<&'static str>,
    created_at: Timestamp,
}

impl NewRow {
    /// Makes what holds the place of a dead letter.
    fn stub(destination: String, key: Option<String>, envelope: &Envelope) -> Self {
        Self {
            destination,
            order: Order::PerKey,
            envelope: Envelope {
                headers: Headers::default(),
                body: Bytes::new(),
                ..envelope.clone()
            },
            key,
            due_at: Timestamp::NEVER,
            expires_at: None,
            attempts: Vec::new(),
            timer: None,
        }
    }
}

impl Row {
    fn is_stub(&self) -> bool {
        self.available_at == Timestamp::NEVER
    }

    /// Returns the line that the row stands in: the rows of its destination and key, where order
    /// is promised.
    fn line(&self) -> Option<(String, String)> {
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
pub(super) struct Outbox {
    last_id: i64,
    rows: BTreeMap<i64, Row>,
    /// Destination to the rows that wait, by the time at which they may be taken.
    waiting: BTreeMap<String, BTreeSet<(Timestamp, i64)>>,
    /// Destination and key to the rows of which only the oldest may move. Parked rows hold back
    /// nobody and are in no line.
    lines: HashMap<(String, String), BTreeSet<i64>>,
    timers: HashMap<(InstanceId, String), i64>,
    has_news: bool,
}

impl Outbox {
    /// Says whether rows became available since it was last asked.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn parked_count(&self) -> usize {
        let parked = self.rows.values().filter(|row| row.parked.is_some());
        parked.count()
    }

    /// Counts the rows that hold the places of dead letters.
    pub(super) fn stub_count(&self) -> usize {
        self.rows.values().filter(|row| row.is_stub()).count()
    }

    /// Counts the rows whose time has come, parked ones aside.
    pub(super) fn due_count(&self, now: Timestamp) -> usize {
        let is_due = |row: &&Row| row.parked.is_none() && row.new.due_at <= now;
        self.rows.values().filter(is_due).count()
    }

    /// Says whether rows of a key wait where order is promised.
    pub(super) fn has_line(&self, destination: &str, key: &str) -> bool {
        self.lines
            .contains_key(&(destination.to_owned(), key.to_owned()))
    }

    /// Says whether a row of this message is there.
    pub(super) fn has_message(&self, destination: &str, id: MessageId) -> bool {
        let is_meant = |row: &Row| row.new.envelope.id == id && row.new.destination == destination;
        self.rows.values().any(is_meant)
    }

    /// Says whether a row is there under this epoch.
    pub(super) fn is_current(&self, key: RowKey) -> bool {
        self.rows
            .get(&key.id)
            .is_some_and(|row| row.epoch == key.epoch)
    }

    /// Says whether a row is there under this epoch, and not an operator's.
    pub(super) fn is_ours(&self, key: RowKey) -> bool {
        let row = self.rows.get(&key.id);
        row.is_some_and(|row| row.epoch == key.epoch && row.parked.is_none())
    }

    /// Writes a row and returns its key if it was born leased.
    pub(super) fn insert(
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

    /// Hands the parked messages of one destination to an endpoint.
    pub(super) fn adopt(&mut self, parked_at: &str, target: &Target, now: Timestamp) {
        let is_meant =
            |row: &Row| row.parked == Some("no_owner") && row.new.destination == parked_at;
        let ids: Vec<i64> = self
            .rows
            .iter()
            .filter(|(_, row)| is_meant(row))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.unpark(id, Some(target), now);
        }
    }

    /// Gives a parked row back to the hosts, at its own destination or at another one.
    fn unpark(&mut self, id: i64, target: Option<&Target>, now: Timestamp) {
        self.change(id, |row| {
            row.parked = None;
            row.available_at = row.new.due_at.max(now);
            if let Some(target) = target {
                row.new.destination = format!("@{}", target.name);
                // What is not due before later stands in no line, as always.
                let is_due = row.new.due_at <= now;
                row.new.order = if is_due {
                    target.order
                } else {
                    Order::Unordered
                };
            }
        });
        let Some(row) = self.rows.get(&id) else {
            return;
        };
        let (line, available_at) = (row.line(), row.available_at);
        let destination = row.new.destination.clone();
        if let Some(line) = line {
            self.lines.entry(line).or_default().insert(id);
        }
        self.wait(&destination, available_at, id);
        self.has_news = true;
    }

    /// Lets hosts try a parked row again as if it were new; `owner_of` says which endpoint takes a
    /// command that nobody took. Returns the row as it was, where it is released.
    pub(super) fn release(
        &mut self,
        id: i64,
        owner_of: impl FnOnce(&str) -> Option<Target>,
        now: Timestamp,
    ) -> Option<StoredRow> {
        let row = self.rows.get(&id).filter(|row| row.parked.is_some())?;
        let stored = stored_row(id, row, 0);
        let target = match stored.destination.starts_with('?') {
            true => Some(owner_of(&stored.envelope.message_type)?),
            false => None,
        };
        self.change(id, |row| {
            row.new.attempts.clear();
            (row.starts, row.failures, row.solo_starts) = (0, 0, 0);
        });
        self.unpark(id, target.as_ref(), now);
        Some(stored)
    }

    /// Removes a parked row and returns it.
    pub(super) fn discard(&mut self, id: i64, now: Timestamp) -> Option<StoredRow> {
        let row = self.rows.get(&id).filter(|row| row.parked.is_some())?;
        let stored = stored_row(id, row, 0);
        self.remove(id, now);
        Some(stored)
    }

    /// Lists rows by their ids, the oldest first.
    pub(super) fn stored(&self, body_bytes_max: u32) -> impl DoubleEndedIterator<Item = StoredRow> {
        self.rows
            .iter()
            .map(move |(id, row)| stored_row(*id, row, body_bytes_max))
    }

    /// Returns the row of a timer that is armed.
    pub(super) fn timer(&self, owner: &InstanceId, name: &str) -> Option<i64> {
        let key = (owner.clone(), name.to_owned());
        self.timers.get(&key).copied()
    }

    /// Removes the row of a timer, if it is still there.
    pub(super) fn disarm(&mut self, owner: &InstanceId, name: &str, now: Timestamp) {
        if let Some(id) = self.timer(owner, name) {
            self.remove(id, now);
        }
    }

    /// Makes a stub of a row that stands in a line, which holds its place; any other row goes.
    pub(super) fn hold(&mut self, id: i64, now: Timestamp) {
        if self.rows.get(&id).and_then(Row::line).is_none() {
            return self.remove(id, now);
        }
        self.move_to(id, Timestamp::NEVER);
        self.change(id, |row| {
            // Nobody who had the row can settle or extend the stub.
            row.epoch += 1;
            (row.starts, row.failures, row.solo_starts) = (0, 0, 0);
            row.new = NewRow::stub(
                row.new.destination.clone(),
                row.new.key.clone(),
                &row.new.envelope,
            );
        });
    }

    /// Writes the stub of a message that was no row.
    pub(super) fn put_stub(&mut self, destination: String, dead: &DeadLetter, now: Timestamp) {
        if self
            .stub(&destination, dead.held_key(), dead.envelope.id)
            .is_some()
        {
            return;
        }
        let key = dead.held_key().map(str::to_owned);
        let stub = NewRow::stub(destination, key, &dead.envelope);
        self.insert(stub, Birth::Available, now, now);
        let id = self.last_id;
        self.move_to(id, Timestamp::NEVER);
        self.change(id, |row| row.epoch = 1);
    }

    /// Finds the stub of a dead letter.
    pub(super) fn stub(
        &self,
        destination: &str,
        key: Option<&str>,
        message: MessageId,
    ) -> Option<i64> {
        let line = (destination.to_owned(), key?.to_owned());
        let is_meant = |id: &&i64| {
            let row = self.rows.get(id);
            row.is_some_and(|row| row.is_stub() && row.new.envelope.id == message)
        };
        self.lines.get(&line)?.iter().find(is_meant).copied()
    }

    /// Puts a message in the place that its stub held.
    pub(super) fn fill_stub(&mut self, id: i64, envelope: Envelope, now: Timestamp) {
        self.move_to(id, now);
        self.change(id, |row| {
            row.new.envelope = envelope;
            row.new.due_at = now;
            row.created_at = now;
        });
        self.has_news = true;
    }

    /// Removes a row and pulls the next of its key forward.
    pub(super) fn remove(&mut self, id: i64, now: Timestamp) {
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
    pub(super) fn settle(&mut self, settle: &Settle, now: Timestamp) {
        let (Settle::Delete(key)
        | Settle::Release { row: key, .. }
        | Settle::Park { row: key, .. }
        | Settle::StartSolo(key)) = settle;
        if !self.is_current(*key) {
            return;
        }
        match settle {
            Settle::Delete(key) => self.remove(key.id, now),
            Settle::Release {
                row,
                after,
                attempts,
                start,
            } => {
                self.change(row.id, |row| {
                    if let Some(attempts) = attempts {
                        row.record(attempts);
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
    pub(super) fn extend(&mut self, keys: &[RowKey], lease_end: Timestamp) -> u64 {
        let mut count = 0;
        for key in keys {
            if self.is_ours(*key) {
                self.move_to(key.id, lease_end);
                count += 1;
            }
        }
        count
    }

    /// Measures what waits.
    pub(super) fn measure(&self, measure: &Measure, now: Timestamp) -> Backlog {
        let count = |(name, limit): &(EndpointName, u32)| {
            let destination = format!("@{name}");
            let waiting = self.waiting.get(&destination).into_iter().flatten();
            let rows = waiting.filter_map(|(_, id)| self.rows.get(id));
            let taken_over = rows.filter(|row| row.new.timer.is_none());
            let count = taken_over.take(*limit as usize).count();
            u32::try_from(count).unwrap_or(*limit)
        };
        let first = |(destination, rows): (&String, &BTreeSet<(Timestamp, i64)>)| {
            let (available_at, _) = rows.first()?;
            let age = now.as_micros() - available_at.as_micros();
            let age = u64::try_from(age).ok()?;
            Some((destination.clone(), Duration::from_micros(age)))
        };
        let is_asked = measure.oldest == Wanted::Yes;
        Backlog {
            counts: measure.endpoints.iter().map(count).collect(),
            oldest: is_asked
                .then(|| {
                    self.waiting
                        .iter()
                        .filter_map(first)
                        .max_by_key(|one| one.1)
                })
                .flatten(),
        }
    }

    pub(super) fn claim(&mut self, claim: &Claim, now: Timestamp) -> Vec<ClaimedRow> {
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
                except,
            } => {
                in_all = *limit;
                wanted.extend(
                    self.waiting
                        .keys()
                        .filter(|to| name.carries(to) && !except.contains(to))
                        .map(|to| (to.clone(), *per_address)),
                );
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

    fn change(&mut self, id: i64, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.rows.get_mut(&id) {
            change(row);
        }
    }

    /// Changes when a row may be taken.
    fn move_to(&mut self, id: i64, available_at: Timestamp) {
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
    fn step_out(&mut self, id: i64, row: &Row, now: Timestamp) {
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

    fn wait(&mut self, destination: &str, available_at: Timestamp, id: i64) {
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

fn stored_row(id: i64, row: &Row, body_bytes_max: u32) -> StoredRow {
    let envelope = &row.new.envelope;
    StoredRow {
        id,
        destination: row.new.destination.clone(),
        envelope: Envelope {
            body: cut(&envelope.body, body_bytes_max),
            ..envelope.clone()
        },
        body_bytes: envelope.body.len() as u64,
        key: row.new.key.clone(),
        available_at: row.available_at,
        due_at: (row.new.due_at > row.created_at).then_some(row.new.due_at),
        expires_at: row.new.expires_at,
        epoch: row.epoch,
        failures: row.failures,
        attempts: row.new.attempts.clone(),
        parked: row.parked.map(str::to_owned),
        timer: row.new.timer.clone(),
        created_at: row.created_at,
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
