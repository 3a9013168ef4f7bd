//! The accounts of the in-memory store.

use std::collections::{BTreeMap, BTreeSet};

use super::database::Database;
use crate::admin::{
    Accounts, DeadLetterStatus, End, MISSING_MAX, MissingMessage, Origin, StoredDeadLetter,
};
use crate::clock::Timestamp;
use crate::id::MessageId;
use crate::unit_of_work::Reason;

/// What is known of one message at one endpoint.
#[derive(Default)]
struct Known<'a> {
    message_type: Option<String>,
    /// When it came, as far as something says that it did.
    came: Option<Timestamp>,
    /// The history entry that put it there; only a later one handled it.
    came_by: i64,
    is_accepted: bool,
    /// The last history entry that it has.
    handled: Option<(i64, Timestamp)>,
    /// Its last dead letter.
    dead: Option<&'a StoredDeadLetter>,
    is_pending: bool,
}

impl Database {
    /// Balances what came against what became of it.
    pub(super) fn accounts(&self, without: &[String]) -> Accounts {
        let since = self.swept_through;
        let moved = self.moved();
        let taken_away = self.taken_away();
        let mut accounts = Accounts::since(since);
        let mut lines: BTreeMap<(String, Option<String>, Origin), u64> = BTreeMap::new();
        for ((endpoint, message), mut known) in self.known() {
            if without.contains(&endpoint) || !known.is_meant(since) {
                continue;
            }
            let mut end = known.end(&moved);
            let taken = taken_away.get(&(endpoint.clone(), message));
            if let Some((message_type, taken)) = taken.filter(|_| end == End::Missing) {
                end = *taken;
                known
                    .message_type
                    .get_or_insert_with(|| message_type.clone());
            }
            let origin = Origin {
                is_accepted: known.is_accepted,
                end,
            };
            if origin.end == End::Missing {
                accounts.missing.push(MissingMessage {
                    endpoint: endpoint.clone(),
                    message,
                    message_type: known.message_type.clone(),
                    at: known.since_when(),
                });
            }
            let line = (endpoint, known.message_type, origin);
            *lines.entry(line).or_default() += 1;
        }
        for ((endpoint, message_type, origin), count) in lines {
            accounts.add(&endpoint, message_type.as_deref(), origin, count);
        }
        accounts.missing.sort_by_key(|one| (one.at, one.message));
        accounts.missing.truncate(MISSING_MAX as usize);
        accounts
    }

    /// Gathers what the tables say of each message at each endpoint that there is.
    fn known(&self) -> BTreeMap<(String, MessageId), Known<'_>> {
        let names: BTreeMap<_, _> = self
            .routes
            .endpoints
            .values()
            .map(|target| (target.id, target.name.to_string()))
            .collect();
        let is_there = |name: &str| names.values().any(|one| one == name);
        let mut all: BTreeMap<(String, MessageId), Known<'_>> = BTreeMap::new();
        for ((message, endpoint), at) in &self.inbox {
            if let Some(name) = names.get(endpoint) {
                let known = all.entry((name.clone(), *message)).or_default();
                known.is_accepted = true;
                known.came = known.came.max(Some(*at));
            }
        }
        for (id, at, entry) in &self.history {
            let placed = entry.detail.placed.iter();
            for (place, name) in placed.filter(|(_, name)| is_there(name.as_str())) {
                let Some((message, message_type)) = entry.detail.sent.get(*place as usize) else {
                    continue;
                };
                let known = all.entry((name.to_string(), *message)).or_default();
                known.message_type = Some(message_type.to_string());
                known.came = known.came.max(Some(*at));
                known.came_by = known.came_by.max(*id);
            }
            if let Some(name) = names.get(&entry.endpoint) {
                let known = all.entry((name.clone(), entry.message_id)).or_default();
                known.message_type = Some(entry.message_type.to_string());
                known.handled = known.handled.max(Some((*id, *at)));
            }
        }
        for dead in self
            .dead_letters
            .values()
            .filter(|one| is_there(&one.endpoint))
        {
            let key = (dead.endpoint.clone(), dead.envelope.id);
            let known = all.entry(key).or_default();
            known.message_type = Some(dead.envelope.message_type.to_string());
            known.dead = Some(dead);
        }
        for row in self.outbox.stored(0).filter(|row| !row.is_stub()) {
            let Some(name) = row
                .destination
                .strip_prefix('@')
                .filter(|name| is_there(name))
            else {
                continue;
            };
            let known = all.entry((name.to_owned(), row.envelope.id)).or_default();
            known.message_type = Some(row.envelope.message_type.to_string());
            known.is_pending = true;
        }
        all
    }

    /// Lists the messages whose rows operators took away from an endpoint: removed, or sent
    /// elsewhere.
    fn taken_away(&self) -> BTreeMap<(String, MessageId), (String, End)> {
        let mut taken = BTreeMap::new();
        for one in &self.audit {
            let end = match one.action.as_str() {
                "discard_rows" | "purge_rows" => End::Discarded,
                "readdress_rows" => End::Moved,
                _ => continue,
            };
            for row in one.detail.as_array().into_iter().flatten() {
                let text = |name: &str| row[name].as_str().unwrap_or_default();
                let place = text("destination").strip_prefix('@');
                let Some((place, message)) = place.zip(text("message_id").parse().ok()) else {
                    continue;
                };
                let message_type = text("message_type").to_owned();
                let known = taken.entry((place.to_owned(), message));
                let known = known.or_insert((message_type, end));
                if known.1 != End::Moved {
                    known.1 = end;
                }
            }
        }
        taken
    }

    /// Lists the dead letters that were redriven to another endpoint, or under another identity.
    fn moved(&self) -> BTreeSet<i64> {
        let edits = self
            .audit
            .iter()
            .filter(|one| one.action == "edit_dead_letter");
        let edits = edits.flat_map(|one| one.detail.as_array().into_iter().flatten());
        let renamed = edits
            .filter(|one| one["sent_as"] != one["message_id"])
            .filter_map(|one| one["id"].as_i64());
        let operations = self.operations.values();
        let elsewhere = operations.flat_map(|one| one.sent_elsewhere());
        let is_elsewhere = |(id, to): &(i64, &str)| {
            let dead = self.dead_letters.get(id);
            dead.is_some_and(|dead| dead.endpoint != *to)
        };
        let elsewhere = elsewhere.filter(is_elsewhere).map(|(id, _)| id);
        renamed.chain(elsewhere).collect()
    }
}

impl Known<'_> {
    /// Says whether it is of the time that is accounted for, or still there.
    fn is_meant(&self, since: Timestamp) -> bool {
        let is_open = |one: &StoredDeadLetter| one.status == DeadLetterStatus::Open;
        self.is_pending
            || self.came.is_some_and(|at| at > since)
            || self.handled.is_some_and(|(_, at)| at > since)
            || self.dead.is_some_and(|one| is_open(one) || one.at > since)
    }

    fn since_when(&self) -> Timestamp {
        let came = self.came.or(self.dead.map(|one| one.at));
        came.unwrap_or(Timestamp::from_micros(0))
    }

    /// Says what became of it. What happened last counts.
    fn end(&self, moved: &BTreeSet<i64>) -> End {
        let is_handled = self.handled.is_some_and(|(id, at)| {
            id > self.came_by && self.dead.is_none_or(|dead| at >= dead.at)
        });
        match self.dead.map(|one| (one, one.status)) {
            _ if self.is_pending => End::Pending,
            Some((one, DeadLetterStatus::Open)) if one.reason == Reason::Expired.as_str() => {
                End::Expired
            }
            Some((_, DeadLetterStatus::Open)) => End::Dead,
            _ if is_handled => End::Handled,
            Some((_, DeadLetterStatus::Discarded)) => End::Discarded,
            Some((one, DeadLetterStatus::Redriven)) if moved.contains(&one.id) => End::Moved,
            _ => End::Missing,
        }
    }
}
