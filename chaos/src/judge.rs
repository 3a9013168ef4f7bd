//! Compares what is there with what must be there, in the words of the Jepsen reports.

use std::collections::{BTreeMap, BTreeSet};

use sagabus::Message;
use sagabus_testkit::transfers::{Overdue, cannot_be_noted};
use uuid::Uuid;

use crate::client::Placed;
use crate::fault;
use crate::machine::{KIND, expected};
use crate::records::Records;
use crate::runs::Stops;

/// What was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) attempts: i64,
    pub(crate) acknowledged: usize,
    pub(crate) unknown: usize,
    pub(crate) failed: usize,
    /// Of unknown outcome, and there all the same.
    pub(crate) recovered: usize,
    /// Effects that must be there.
    pub(crate) effects: usize,
    /// What must hold and does not, each with examples.
    pub(crate) wrong: Vec<(&'static str, Vec<String>)>,
    pub(crate) lost: usize,
    pub(crate) duplicated: usize,
    pub(crate) unexpected: usize,
}

impl Verdict {
    pub(crate) fn of(placed: &Placed, records: &Records) -> Self {
        let there: BTreeSet<i64> = records.placed.iter().copied().collect();
        let recovered: Vec<i64> = placed
            .unknown
            .iter()
            .filter(|id| there.contains(id) || *id % 2 == 1 && has_any(records, **id))
            .copied()
            .collect();
        let mut wanted: BTreeSet<i64> = placed.acknowledged.iter().copied().collect();
        wanted.extend(&recovered);
        let mut verdict = Self {
            attempts: placed.attempts,
            acknowledged: placed.acknowledged.len(),
            unknown: placed.unknown.len(),
            failed: placed.failed.len(),
            recovered: recovered.len(),
            ..Self::default()
        };
        verdict.judge_ledger(&wanted, records);
        verdict.judge_placed(placed, &there);
        verdict.judge_chains(records);
        verdict.judge_messages(placed, records);
        verdict.judge_dead(&wanted, records);
        verdict
    }

    fn wrong(&mut self, what: &'static str, examples: Vec<String>) {
        if !examples.is_empty() {
            self.wrong.push((what, examples));
        }
    }

    /// (1) The sum is as before; (2) each transfer has its legs; (3) each once.
    fn judge_ledger(&mut self, wanted: &BTreeSet<i64>, records: &Records) {
        let mut found: BTreeMap<(i64, &str, i64), usize> = BTreeMap::new();
        for (id, leg, cents) in &records.ledger {
            *found.entry((*id, leg, *cents)).or_default() += 1;
        }
        let (mut lost, mut doubled) = (Vec::new(), Vec::new());
        for id in wanted {
            for (leg, cents) in expected(*id) {
                self.effects += 1;
                match found.remove(&(*id, leg, cents)) {
                    None => lost.push(format!("{leg} of {id}")),
                    Some(1) => {}
                    Some(times) => doubled.push(format!("{leg} of {id}, {times} times")),
                }
            }
        }
        let unexpected: Vec<_> = found
            .keys()
            .map(|(id, leg, cents)| format!("{leg} of {id}: {cents}"))
            .collect();
        (self.lost, self.duplicated) = (lost.len(), doubled.len());
        self.unexpected = unexpected.len();
        self.wrong("lost effects", lost);
        self.wrong("duplicated effects", doubled);
        self.wrong("unexpected effects", unexpected);
        let sum: i64 = records.ledger.iter().map(|(_, _, cents)| cents).sum();
        if sum != 0 {
            self.wrong("money was made or lost", vec![format!("{sum} cents")]);
        }
    }

    /// A row of the API's own is there exactly when its transfer was acknowledged.
    fn judge_placed(&mut self, placed: &Placed, there: &BTreeSet<i64>) {
        let acknowledged = placed.acknowledged.iter().filter(|id| *id % 2 == 0);
        let missing = acknowledged.filter(|id| !there.contains(id));
        let missing = missing.map(ToString::to_string).collect();
        self.wrong("acknowledged and not there", missing);
        let refused = placed.failed.iter().filter(|id| there.contains(id));
        let refused = refused.map(ToString::to_string).collect();
        self.wrong("refused and there", refused);
    }

    /// (4) Each instance's versions are one chain without gap or fork.
    fn judge_chains(&mut self, records: &Records) {
        let mut chains: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        for entry in &records.history {
            if let (Some(KIND), Some(key), Some(version)) =
                (entry.kind.as_deref(), entry.key.as_deref(), entry.version)
            {
                chains.entry(key).or_default().push(version);
            }
        }
        let is_broken = |(key, last): (&String, &i64)| {
            let mut chain = chains.get(key.as_str()).cloned().unwrap_or_default();
            chain.sort_unstable();
            let is_whole = chain.iter().copied().eq(1..=*last);
            (!is_whole).then(|| format!("{key}: {chain:?}, at {last}"))
        };
        let broken = records.instances.iter().filter_map(is_broken).collect();
        self.wrong("broken chains", broken);
    }

    /// (5) What was handled is what committed units and the client sent, and nothing else; (6)
    /// each message has one end.
    fn judge_messages(&mut self, placed: &Placed, records: &Records) {
        let mut created: BTreeMap<Uuid, &str> = BTreeMap::new();
        for entry in &records.history {
            created.extend(entry.sent.iter().map(|(id, kind)| (*id, kind.as_str())));
        }
        let mut ends: BTreeMap<Uuid, usize> = BTreeMap::new();
        let dead = records.dead.iter().map(|(id, _, _)| *id);
        for id in records
            .history
            .iter()
            .map(|entry| entry.message)
            .chain(dead)
        {
            *ends.entry(id).or_default() += 1;
        }
        let from_api: BTreeSet<Uuid> = placed.messages.iter().map(|id| id.as_uuid()).collect();
        let is_known = |id: &Uuid| created.contains_key(id) || from_api.contains(id);
        // What the client's own transaction sent with an unknown outcome has an identity that it
        // was told, so that all are known.
        let ghosts = ends.keys().filter(|id| !is_known(id));
        let ghosts = ghosts.map(ToString::to_string).collect();
        self.wrong("handled and never sent by a committed unit", ghosts);
        let endless = created
            .iter()
            .filter(|(id, kind)| **kind != Overdue::TYPE && !ends.contains_key(id));
        let endless = endless.map(|(id, kind)| format!("{kind} {id}")).collect();
        self.wrong("sent and never ended", endless);
        let twice = ends.iter().filter(|(_, times)| **times > 1);
        let twice = twice
            .map(|(id, times)| format!("{id}, {times} times"))
            .collect();
        self.wrong("messages with more than one end", twice);
        if records.outbox > 0 {
            self.wrong("rows that still wait", vec![records.outbox.to_string()]);
        }
    }

    /// Hosts that are told to go do so in time, and no more is handled again than they had in hand.
    pub(crate) fn judge_stops(&mut self, stops: &Stops, faults: &BTreeMap<&'static str, u64>) {
        self.wrong("more handled again than was in hand", stops.wrong.clone());
        for what in [fault::TOO_LATE, fault::BADLY] {
            if let Some(times) = faults.get(what) {
                self.wrong(what, vec![times.to_string()]);
            }
        }
    }

    /// Dead letters are those that must be, and no others.
    fn judge_dead(&mut self, wanted: &BTreeSet<i64>, records: &Records) {
        let must = wanted.iter().filter(|id| cannot_be_noted(**id)).count();
        let is_meant = |reason: &str| reason == "attempts_exhausted";
        let others = records
            .dead
            .iter()
            .filter(|(_, reason, _)| !is_meant(reason));
        let others = others
            .map(|(id, reason, kind)| format!("{kind} {id}: {reason}"))
            .collect();
        self.wrong("dead letters of another reason", others);
        let found = records.dead.len();
        if found != must {
            let facts = format!("{found} instead of {must}");
            self.wrong("dead letters", vec![facts]);
        }
    }
}

fn has_any(records: &Records, id: i64) -> bool {
    records.ledger.iter().any(|(of, _, _)| *of == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(n: i64) -> (Placed, Records) {
        let placed = Placed {
            attempts: n,
            acknowledged: (0..n).collect(),
            ..Placed::default()
        };
        let legs = (0..n).flat_map(|id| {
            let legs = expected(id).into_iter();
            legs.map(move |(leg, cents)| (id, leg.to_owned(), cents))
        });
        let dead = (0..n).filter(|id| cannot_be_noted(*id)).map(|_| {
            let id = sagabus::MessageId::new().as_uuid();
            (
                id,
                "attempts_exhausted".to_owned(),
                "transfer.settled".to_owned(),
            )
        });
        let records = Records {
            ledger: legs.collect(),
            placed: (0..n).filter(|id| id % 2 == 0).collect(),
            dead: dead.collect(),
            ..Records::default()
        };
        (placed, records)
    }

    fn faults(placed: &Placed, records: &Records) -> Vec<&'static str> {
        let verdict = Verdict::of(placed, records);
        verdict.wrong.iter().map(|(what, _)| *what).collect()
    }

    #[test]
    fn what_is_lost_doubled_and_invented_is_seen() {
        let (placed, records) = whole(30);
        let ghosts = "handled and never sent by a committed unit";
        assert_eq!(
            faults(&placed, &records),
            [ghosts],
            "the dead were sent by nobody here"
        );
        let mut broken = records.clone();
        let gone = broken.ledger.remove(0);
        let seen = faults(&placed, &broken);
        assert!(seen.contains(&"lost effects") && seen.contains(&"money was made or lost"));
        broken.ledger.extend([gone.clone(), gone]);
        assert!(faults(&placed, &broken).contains(&"duplicated effects"));
        let mut invented = records.clone();
        invented.ledger.push((3, "credit".to_owned(), 1003));
        assert!(faults(&placed, &invented).contains(&"unexpected effects"));
        let mut missing = records;
        missing.placed.remove(0);
        assert!(faults(&placed, &missing).contains(&"acknowledged and not there"));
    }

    #[test]
    fn a_chain_with_a_gap_or_a_fork_is_seen() {
        let entry = |version| crate::records::Handled {
            message: sagabus::MessageId::new().as_uuid(),
            kind: Some(KIND.to_owned()),
            key: Some("1".to_owned()),
            version: Some(version),
            sent: Vec::new(),
        };
        for (versions, is_broken) in [
            (vec![1, 2, 3], false),
            (vec![1, 3], true),
            (vec![1, 2, 2, 3], true),
        ] {
            let records = Records {
                history: versions.into_iter().map(entry).collect(),
                instances: [("1".to_owned(), 3)].into(),
                ..Records::default()
            };
            let seen = faults(&Placed::default(), &records);
            assert_eq!(seen.contains(&"broken chains"), is_broken);
        }
    }
}
