//! Which dead letters are meant, in words of the command line.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use sagabus_core::admin::{DeadLetterFilter, DeadLetterStatus};
use sagabus_core::unit_of_work::Label;
use sagabus_core::{MessageId, Timestamp};

/// Which dead letters.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct DeadLetters {
    /// Only what this endpoint gave up.
    #[arg(long)]
    pub(crate) endpoint: Option<String>,
    /// Only this message type.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) message_type: Option<String>,
    /// Only this reason, for example attempts_exhausted.
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Only this group, as `groups` shows it.
    #[arg(long)]
    pub(crate) fingerprint: Option<String>,
    /// Only errors with this text in their fingerprint.
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// Only this business key.
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Only what was for an instance with this label.
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    pub(crate) label: Option<Label>,
    /// Only this message.
    #[arg(long, value_name = "ID")]
    pub(crate) message: Option<MessageId>,
    /// Only what is older than this: 90s, 15m, 2h, 3d.
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) older_than: Option<Duration>,
    /// Only what is younger than this.
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) younger_than: Option<Duration>,
    /// Only what is open, redriven, discarded or any.
    #[arg(long, value_enum, default_value_t = Status::Open, hide_possible_values = true)]
    pub(crate) status: Status,
}

/// What became of a dead letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Status {
    #[default]
    Open,
    Redriven,
    Discarded,
    Any,
}

impl DeadLetters {
    /// Says whether it lets everything through.
    pub(crate) fn is_empty(&self) -> bool {
        self.endpoint.is_none()
            && self.message_type.is_none()
            && self.reason.is_none()
            && self.fingerprint.is_none()
            && self.text.is_none()
            && self.key.is_none()
            && self.label.is_none()
            && self.message.is_none()
            && self.older_than.is_none()
            && self.younger_than.is_none()
    }

    /// Makes the filter, with ages counted from the database's time.
    pub(crate) fn at(&self, now: Timestamp) -> DeadLetterFilter {
        DeadLetterFilter {
            id: None,
            status: match self.status {
                Status::Open => Some(DeadLetterStatus::Open),
                Status::Redriven => Some(DeadLetterStatus::Redriven),
                Status::Discarded => Some(DeadLetterStatus::Discarded),
                Status::Any => None,
            },
            endpoint: self.endpoint.clone(),
            message_type: self.message_type.clone(),
            reason: self.reason.clone(),
            fingerprint: self.fingerprint.clone(),
            text: self.text.clone(),
            key: self.key.clone(),
            label: self.label.clone(),
            message: self.message,
            since: self.younger_than.map(|age| before(now, age)),
            until: self.older_than.map(|age| before(now, age)),
            id_max: None,
        }
    }
}

/// Returns ids as they were named, each once.
pub(crate) fn each_once(ids: &[i64]) -> Vec<i64> {
    let mut seen = BTreeSet::new();
    let new = |id: &&i64| seen.insert(**id);
    ids.iter().filter(new).copied().collect()
}

/// Returns the time that lies so far back.
pub(crate) fn before(now: Timestamp, age: Duration) -> Timestamp {
    let back = sagabus_core::clock::micros(age);
    Timestamp::from_micros(now.as_micros().saturating_sub(back))
}

/// A point in time, in words of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// So long ago.
    Ago(Duration),
    /// Then.
    At(Timestamp),
}

impl When {
    /// Reads an age, or a time.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let at = || text.parse().map(Self::At);
        let neither =
            |_| format!("{text:?} is neither an age like 15m nor a time like 2026-11-21T12:40:00Z");
        age(text).map(Self::Ago).or_else(|_| at()).map_err(neither)
    }

    /// Returns the time that it is, counted from the database's.
    pub(crate) fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(age) => before(now, age),
            Self::At(at) => at,
        }
    }
}

/// Reads `90s`, `15m`, `2h`, `3d`.
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no age; write a number and one of s, m, h, d, like 15m");
    let unit = match text.chars().next_back() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 60 * 60,
        Some('d') => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    count
        .checked_mul(unit)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

/// Reads `payment_id=4711`. The value may have further equals signs, and be empty.
pub(crate) fn label(text: &str) -> Result<Label, String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("write NAME=VALUE, for example payment_id=4711")?;
    Ok(Label {
        name: name.to_owned().into(),
        value: value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_and_nonsense_is_refused() {
        assert_eq!(age("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(age("2h"), Ok(Duration::from_secs(7200)));
        for nonsense in [
            "",
            "s",
            "-1s",
            "1",
            "1.5h",
            "9999999999999999999d",
            "ä",
            "1ä",
        ] {
            let refused = age(nonsense).unwrap_err();
            assert!(refused.contains("like 15m"), "{nonsense}: {refused}");
        }
        let last = u64::MAX / (24 * 60 * 60);
        assert!(age(&format!("{last}d")).is_ok());
        assert!(age(&format!("{}d", last + 1)).is_err());
    }

    #[test]
    fn a_time_is_an_age_or_a_date() {
        let now = Timestamp::from_micros(7_200_000_000);
        let hour = |text: &str| When::read(text).map(|when| when.at(now).as_micros());
        assert_eq!(hour("1h"), Ok(3_600_000_000));
        assert_eq!(hour("1970-01-01T01:00:00Z"), Ok(3_600_000_000));
        assert_eq!(hour("1970-01-01T03:00:00+02:00"), Ok(3_600_000_000));
        for nonsense in ["", "h", "yesterday", "1970-01-01", "1970-13-01T00:00:00Z"] {
            let refused = When::read(nonsense).unwrap_err();
            assert!(refused.contains("neither"), "{nonsense}: {refused}");
        }
    }

    #[test]
    fn an_age_before_time_itself_is_the_first_moment() {
        let at = before(Timestamp::from_micros(5), Duration::MAX);
        assert!(at.as_micros() < 0);
    }

    #[test]
    fn labels_are_read_and_nonsense_is_refused() {
        for (text, name, value) in [("a=b", "a", "b"), ("a=b=c", "a", "b=c"), ("a=", "a", "")] {
            let label = label(text).unwrap();
            assert_eq!((&*label.name, &*label.value), (name, value));
        }
        for text in ["", "payment", "=4711"] {
            assert!(label(text).is_err(), "{text}");
        }
    }
}
