//! Changes of many: shown, confirmed, begun as an operation, and driven.

use clap::Args;
use sagabus_core::admin::{Pace, RowVerb, Selected, StoreAdmin, Tally, Verb};
use sagabus_ops::{demand_at_most, operations, shape};
use serde_json::{Value, json};

use crate::arguments::OperatorArguments;
use crate::confirm::{Answer, confirm, operator};
use crate::failure::Failure;
use crate::operations::drive;
use crate::output::Output;

/// How fast a change of many goes, and how many it may be for.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct PaceArguments {
    /// How many in a second at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// Refuse where more than this are meant.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) at_most: Option<u64>,
}

impl PaceArguments {
    /// Returns the pace of a change that nothing stops by itself.
    pub(crate) fn pace(&self) -> Pace {
        Pace {
            rate: self.rate,
            ..Pace::default()
        }
    }
}

/// What a verb is called, before and after it is done, and why it leaves some as they are.
pub(crate) struct Words {
    pub(crate) todo: &'static str,
    pub(crate) done: &'static str,
    pub(crate) left: &'static str,
}

/// Why something is not as it was any more.
const MOVED: &str = "were not in that state any more";

/// Returns the words for a verb.
pub(crate) fn words(verb: &Verb) -> Words {
    let (todo, done, left) = match verb {
        Verb::Redrive { .. } => ("retry", "retried", MOVED),
        Verb::Discard => ("discard", "discarded", MOVED),
        Verb::Restore => ("restore", "restored", MOVED),
        Verb::Republish => (
            "republish",
            "republished",
            "are not kept any more, or somebody else republished them",
        ),
        Verb::Rows(RowVerb::Park) => (
            "park",
            "parked",
            "stay as they are: sent or handled, parked already, or timers",
        ),
        Verb::Rows(RowVerb::Release) => (
            "release",
            "released",
            "stay as they are: not parked any more, or commands that nobody takes",
        ),
        Verb::Rows(RowVerb::Readdress { .. }) => (
            "release",
            "released",
            "stay as they are: not parked any more, or the endpoint was removed",
        ),
        Verb::Rows(RowVerb::Expedite) => (
            "expedite",
            "expedited",
            "stay as they are: due, in hand, parked, or timers",
        ),
        Verb::Rows(RowVerb::Discard) => ("discard", "discarded", "stay as they are: not parked"),
        Verb::Rows(RowVerb::Purge) => {
            let left = "had been sent or handled meanwhile";
            ("remove", "removed", left)
        }
    };
    Words { todo, done, left }
}

/// Says what a verb would do with so many.
pub(crate) fn question(verb: &Verb, count: u64) -> String {
    let (todo, what) = (words(verb).todo, verb.subject().as_str());
    match verb {
        Verb::Rows(RowVerb::Purge) => format!("{todo} {count} {what}, for good"),
        Verb::Rows(RowVerb::Release | RowVerb::Discard) => format!("{todo} {count} parked {what}"),
        Verb::Rows(RowVerb::Readdress { to }) => format!("{todo} {count} parked {what} to `{to}`"),
        Verb::Redrive { to: Some(to) } => format!("{todo} {count} {what} to `{to}`"),
        _ => format!("{todo} {count} {what}"),
    }
}

/// What a change would touch.
pub(crate) struct Preview {
    pub(crate) selected: Selected,
    pub(crate) count: u64,
    pub(crate) tally: Value,
    pub(crate) sample: Vec<Value>,
}

impl Preview {
    /// Makes it of a selection that was counted.
    pub(crate) fn new(selected: Selected, tally: &Tally, sample: Vec<Value>) -> Self {
        Self {
            selected,
            count: tally.count,
            tally: shape::tally(tally),
            sample,
        }
    }

    fn shape(&self) -> Value {
        json!({ "preview": self.tally, "sample": self.sample })
    }
}

/// What is to be done, how fast, and with how many at most.
pub(crate) struct Wanted {
    pub(crate) verb: Verb,
    pub(crate) pace: Pace,
    pub(crate) at_most: Option<u64>,
}

/// Shows what is meant by `table`, asks, and does it as an operation, driven to its end.
pub(crate) async fn carry_out(
    admin: &dyn StoreAdmin,
    wanted: Wanted,
    preview: Preview,
    table: impl FnOnce() -> Result<(), Failure>,
    (who, out): (&OperatorArguments, &Output),
) -> Result<(), Failure> {
    let Wanted {
        verb,
        pace,
        at_most,
    } = wanted;
    demand_at_most((preview.count, verb.subject().as_str()), at_most)?;
    if preview.count == 0 {
        return none_changed(&verb, out);
    }
    // Of a change that is made, JSON has the result only: one document.
    if out.is_for_people() {
        table()?;
        let more = preview.count.saturating_sub(preview.sample.len() as u64);
        if more > 0 {
            out.line(&format!(".. and {more} more"))?;
        }
    }
    if confirm(who, &question(&verb, preview.count))? == Answer::Preview {
        return out.json(|| preview.shape()).map(|_| ());
    }
    let operator = operator(who);
    let selected = preview.selected;
    match operations::begin(admin, &operator, verb.clone(), selected, pace).await? {
        Some(begun) => drive(admin, &operator, begun.id, out).await,
        None => none_changed(&verb, out),
    }
}

fn none_changed(verb: &Verb, out: &Output) -> Result<(), Failure> {
    let nothing = json!({ "total": 0, "taken": 0, "changed": 0, "passed_over": 0 });
    match out.json(|| nothing)? {
        true => Ok(()),
        false => {
            let (done, what) = (words(verb).done, verb.subject().as_str());
            out.line(&format!("{done} 0 {what}"))
        }
    }
}
