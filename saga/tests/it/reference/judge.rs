//! Compares what a database says about one key with what the reference does on the same messages.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Sums, Till};

/// One transition, as the history has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Link {
    pub(super) version: i64,
    pub(super) message: String,
    /// `add`, `due`, ..
    pub(super) word: String,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
}

/// All that is known about one key.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// What was sent: number and word by identity. Timers are not among them.
    pub(super) sent: BTreeMap<String, (u32, String)>,
    pub(super) chain: Vec<Link>,
    /// Messages given up: identity and reason.
    pub(super) dead: Vec<(String, String)>,
    /// Messages that the instance keeps for a later state.
    pub(super) kept: Vec<String>,
    pub(super) end: Option<End>,
    /// What the book says.
    pub(super) lines: Vec<String>,
}

/// The instance as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct End {
    pub(super) version: i64,
    pub(super) is_running: bool,
    pub(super) sum: i64,
    pub(super) fired: Vec<u32>,
    pub(super) timers: usize,
}

/// Says what is wrong, or what it came to.
pub(super) fn judge(record: &Record) -> Result<Sums, String> {
    let mut till = Till::default();
    let mut applied = BTreeSet::new();
    for (expected, link) in (1..).zip(&record.chain) {
        if link.version != expected {
            return Err(format!("version {expected} is missing: {link:?}"));
        }
        let wrong = |error: String| format!("{error}: {link:?}");
        if link.from.as_deref() != till.life.state {
            let is = till.life.state;
            return Err(wrong(format!("it must come from {is:?}")));
        }
        let number = record.sent.get(&link.message);
        if number.is_some_and(|(_, word)| *word != link.word) {
            return Err(wrong("another message has its identity".to_owned()));
        }
        if number.is_none() && link.word != "due" {
            return Err(wrong("nobody sent it".to_owned()));
        }
        let is_kept = till.keeps(&link.word);
        till.take(&link.word, number.map(|(number, _)| *number))
            .map_err(wrong)?;
        // What is over keeps the name of its last state.
        if till.life.state.is_some() && link.to.as_deref() != till.life.state {
            let is = till.life.state;
            return Err(wrong(format!("it must lead to {is:?}")));
        }
        if !is_kept && !applied.insert(link.message.clone()) {
            return Err(wrong("it was applied before".to_owned()));
        }
    }
    each_once(record, &applied)?;
    end(record, &till)?;
    let (mut is, mut must) = (record.lines.clone(), till.lines);
    is.sort();
    must.sort();
    if is != must {
        return Err(format!("the book has {is:?} and not {must:?}"));
    }
    Ok(till.sums)
}

/// Checks that each message was applied, given up or kept: one of them, once.
fn each_once(record: &Record, applied: &BTreeSet<String>) -> Result<(), String> {
    for (id, (number, word)) in &record.sent {
        let dead = record.dead.iter().filter(|(dead, _)| dead == id).count();
        let kept = record.kept.iter().filter(|kept| *kept == id).count();
        let times = usize::from(applied.contains(id)) + dead + kept;
        if times != 1 {
            return Err(format!("`{word}` {number} ended {times} times"));
        }
    }
    for (id, reason) in &record.dead {
        let word = record.sent.get(id).map_or("a timer", |(_, word)| word);
        let is_right = ["no_instance", "too_late"].contains(&reason.as_str());
        if !is_right || word == "add" || !record.sent.contains_key(id) {
            return Err(format!("{word} must not be given up as {reason}"));
        }
    }
    Ok(())
}

/// Checks the instance that is left.
fn end(record: &Record, till: &Till) -> Result<(), String> {
    let Some(end) = &record.end else {
        return match record.chain.is_empty() {
            true => Ok(()),
            false => Err("the instance is gone".to_owned()),
        };
    };
    let must = End {
        version: i64::try_from(record.chain.len()).unwrap_or(i64::MAX),
        is_running: till.life.state.is_some(),
        sum: till.life.sum,
        fired: till.life.fired.clone(),
        timers: 0,
    };
    if *end != must {
        return Err(format!("the instance is {end:?} and not {must:?}"));
    }
    if let Some(lost) = till.life.armed {
        return Err(format!("the timer of {lost} never fired"));
    }
    Ok(())
}
