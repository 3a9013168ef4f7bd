//! The commit call: one round trip, one transaction, an outcome per unit.

use sagabus_core::StoreError;
use sagabus_core::envelope::Due;
use sagabus_core::store::{Birth, CommitReport, Group, Placement};
use sagabus_core::unit_of_work::{Outcome, RowKey, Settle};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};

use super::attach;
use super::columns::encode;
use super::error::commit_error;
use super::hold;
use super::keep;
use super::label;
use super::one::One;
use super::smooth::{COMMIT_SMOOTH, Smooth};
use super::store::PgStore;

/// The arguments but the first are those of `columns.rs`, in its order.
macro_rules! commit_v1 {
    ($units:literal) => {
        concat!(
            "sagabus.commit_v1(",
            $units,
            ", $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, ",
            "$19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, ",
            "$35, $36, $37, $38, $39, $40, $41, $42, $43, $44, $45, $46, $47, $48, $49, $50, ",
            "$51, $52, $53, $54, $55, $56, $57, $58, $59, $60, $61, $62, $63, $64, $65, $66, ",
            "$67, $68, $69, $70, $71, $72, $73, $74, $75, $76, $77, $78)"
        )
    };
}

/// The stubs of dead letters: the arguments of `hold.rs` follow those of the labels. Which rows stand
/// in a line is asked first, which the first argument of the commit call sees to.
macro_rules! hold_v1 {
    () => {
        "sagabus.hold_v1(c.outcomes, coalesce(c.is_stale, false), l.in_line, $87, $88, $89, $90, \
         $91, $92, $93)"
    };
}

/// The labels of what moved: the arguments of `label.rs` follow those of the commit.
macro_rules! label_v1 {
    () => {
        "sagabus.label_v1(c.outcomes, coalesce(c.is_stale, false), $79, $80, $81, $82, $83, $84, \
         $85, $86)"
    };
}

const COMMIT: &str = concat!(
    "select outcomes, leased, is_stale, has_woken from ",
    commit_v1!("$1")
);

/// [`COMMIT`], and labels.
const COMMIT_LABELLED: &str = concat!(
    "select c.outcomes, c.leased, c.is_stale, c.has_woken, ",
    label_v1!(),
    " from ",
    commit_v1!("$1"),
    " c"
);

/// [`COMMIT_LABELLED`], and the stubs of dead letters.
const COMMIT_HOLDING: &str = concat!(
    "select c.outcomes, c.leased, c.is_stale, c.has_woken, ",
    label_v1!(),
    ", ",
    hold_v1!(),
    " from sagabus.lines_v1($88) as l(in_line) cross join lateral ",
    commit_v1!("$1 + 0 * cardinality(l.in_line)"),
    " c"
);

/// [`COMMIT_HOLDING`], and what is kept of rows that brokers took: copied before the commit call
/// removes them, which its first argument sees to. The arguments of `keep.rs` are the last.
const COMMIT_KEEPING: &str = concat!(
    "select c.outcomes, c.leased, c.is_stale, c.has_woken, ",
    label_v1!(),
    ", ",
    hold_v1!(),
    " from sagabus.lines_v1($88) as l(in_line) ",
    "cross join sagabus.keep_sent_v1($94, $95, $96) as k(count) cross join lateral ",
    commit_v1!("$1 + 0 * (cardinality(l.in_line) + k.count)"),
    " c"
);

/// For a group that only removes rows, as a relay's mostly do. The rows are in the order of their ids.
const SETTLE: &str = "select sagabus.settle_v1($1, $2)";

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// The engine, in a transaction that is this call alone.
    Engine,
    /// The engine, in the transaction that it opened for a handler.
    Handler,
    /// Somebody, in a transaction of their own, which may stay open for long.
    Stranger,
}

impl Door {
    /// Returns the number by which the commit call knows it.
    pub(super) fn as_number(self) -> i16 {
        match self {
            Self::Engine => 0,
            Self::Handler => 1,
            Self::Stranger => 2,
        }
    }
}

/// What the call answered.
#[derive(Debug, Default)]
pub(crate) struct Written {
    outcomes: Option<Vec<i16>>,
    leased: Option<Vec<Option<i64>>>,
    is_stale: bool,
    /// Somebody lost, and nothing was written: the call for any group finds out who.
    is_lost: bool,
    has_woken: bool,
}

impl Written {
    /// Reads the one number that the call for one unit answers.
    fn of_one(answer: i64) -> Self {
        const DUPLICATE: i64 = -1;
        const STALE: i64 = -2;
        let leased = (answer > 1).then_some(answer / 2);
        Self {
            outcomes: (answer == DUPLICATE).then(|| vec![1]),
            leased: leased.map(|id| vec![Some(id)]),
            is_stale: answer == STALE,
            has_woken: answer > 0 && answer % 2 == 1,
            ..Self::default()
        }
    }

    /// Says whether the routes are other ones, and nothing was written.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale
    }
}

/// Writes a group in a transaction of its own.
pub(super) async fn commit(store: &PgStore, group: &Group) -> Result<CommitReport, StoreError> {
    if group.units.is_empty() && group.settles.is_empty() && group.placements.is_empty() {
        return Ok(CommitReport::default());
    }
    let mut written = make(store, Call::least(group)?).await?;
    if written.is_lost {
        written = make(store, Call::any(group, Door::Engine)?).await?;
    }
    let report = judge(store, group, &written).await?;
    announce(store, group, &written);
    Ok(report)
}

async fn make(store: &PgStore, call: Call) -> Result<Written, StoreError> {
    let mut taken = store.take().await?;
    let answer = store.answer(call.make(&mut taken)).await;
    taken.finish(answer, commit_error)
}

/// Writes a group in a transaction that is open; nothing is visible before it ends.
pub(crate) async fn write(
    connection: &mut PgConnection,
    group: &Group,
    door: Door,
) -> Result<Written, StoreError> {
    let call = match One::of(group, door) {
        Some(one) => Call::one(&one, group, door)?,
        None => Call::any(group, door)?,
    };
    call.make(connection).await.map_err(commit_error)
}

/// A group in the form in which it is called for.
enum Call {
    /// Answers one number. With its text.
    One(&'static str, PgArguments),
    /// Of rows that are settled.
    Settle(Vec<RowKey>),
    /// Of a group in which nobody loses.
    Smooth(PgArguments),
    /// With its text.
    Many(&'static str, PgArguments),
}

impl Call {
    /// Makes the call that costs least, in a transaction of its own.
    fn least(group: &Group) -> Result<Self, StoreError> {
        if let Some(one) = One::of(group, Door::Engine) {
            return Self::one(&one, group, Door::Engine);
        }
        if let Some(rows) = only_settled(group) {
            return Ok(Self::Settle(rows));
        }
        match Smooth::of(group) {
            Some(smooth) => smooth.encode().map(Self::Smooth),
            None => Self::any(group, Door::Engine),
        }
    }

    fn one(one: &One<'_>, group: &Group, door: Door) -> Result<Self, StoreError> {
        let arguments = one.encode(group, door)?;
        Ok(Self::One(one.text(), arguments))
    }

    /// Makes the call that any group may be written by.
    fn any(group: &Group, door: Door) -> Result<Self, StoreError> {
        let mut arguments = encode(group, door)?;
        let is_keeping = keep::is_needed(group);
        let is_holding = is_keeping || hold::is_needed(group);
        if !is_holding && !label::is_needed(group) {
            return Ok(Self::Many(COMMIT, arguments));
        }
        label::add(group, &mut arguments)?;
        if !is_holding {
            return Ok(Self::Many(COMMIT_LABELLED, arguments));
        }
        hold::add(group, &mut arguments)?;
        if !is_keeping {
            return Ok(Self::Many(COMMIT_HOLDING, arguments));
        }
        keep::add(group, &mut arguments)?;
        Ok(Self::Many(COMMIT_KEEPING, arguments))
    }

    async fn make(self, connection: &mut PgConnection) -> Result<Written, sqlx::Error> {
        match self {
            Self::One(text, arguments) => {
                let query = sqlx::query_with(text, arguments);
                let row: PgRow = query.fetch_one(connection).await?;
                Ok(Written::of_one(row.try_get(0)?))
            }
            Self::Settle(rows) => {
                let query = sqlx::query_scalar(SETTLE)
                    .bind(rows.iter().map(|row| row.id).collect::<Vec<_>>())
                    .bind(rows.iter().map(|row| row.epoch).collect::<Vec<_>>());
                Ok(Written {
                    has_woken: query.fetch_one(connection).await?,
                    ..Written::default()
                })
            }
            Self::Smooth(arguments) => {
                let query = sqlx::query_with(COMMIT_SMOOTH, arguments);
                let row: PgRow = query.fetch_one(connection).await?;
                Ok(Written {
                    outcomes: None,
                    leased: row.try_get(0)?,
                    is_stale: row.try_get::<Option<bool>, _>(1)?.unwrap_or(false),
                    is_lost: row.try_get(2)?,
                    has_woken: row.try_get(3)?,
                })
            }
            Self::Many(text, arguments) => {
                let query = sqlx::query_with(text, arguments);
                let row: PgRow = query.fetch_one(connection).await?;
                Ok(Written {
                    outcomes: row.try_get(0)?,
                    leased: row.try_get(1)?,
                    is_stale: row.try_get::<Option<bool>, _>(2)?.unwrap_or(false),
                    has_woken: row.try_get(3)?,
                    ..Written::default()
                })
            }
        }
    }
}

/// Returns the rows that a group removes, by id, where it does nothing else.
fn only_settled(group: &Group) -> Option<Vec<RowKey>> {
    if !group.units.is_empty() || !group.placements.is_empty() {
        return None;
    }
    let settles = group.settles.iter().map(|settle| match settle {
        Settle::Delete(row) => Some(*row),
        _ => None,
    });
    let mut rows: Vec<RowKey> = settles.collect::<Option<_>>()?;
    rows.sort_unstable_by_key(|row| (row.id, row.epoch));
    Some(rows)
}

/// Turns the answer into a report, or into the routes by which the group has to be placed anew.
pub(crate) async fn judge(
    store: &PgStore,
    group: &Group,
    written: &Written,
) -> Result<CommitReport, StoreError> {
    if written.is_stale {
        let routes = attach::routes(store).await?;
        return Err(StoreError::StaleRoutes(Box::new(routes)));
    }
    let outcomes = match &written.outcomes {
        None => vec![Outcome::Committed; group.units.len()],
        Some(words) => words.iter().copied().map(outcome).collect(),
    };
    let leased = match &written.leased {
        None => vec![None; group.placements.len()],
        // A row that is born leased has been claimed once.
        Some(ids) => ids
            .iter()
            .map(|id| id.map(|id| RowKey { id, epoch: 1 }))
            .chain(std::iter::repeat(None))
            .take(group.placements.len())
            .collect(),
    };
    Ok(CommitReport { outcomes, leased })
}

/// Wakes whoever may take what was written, once it is visible.
pub(crate) fn announce(store: &PgStore, group: &Group, written: &Written) {
    let is_for_others = |placement: &Placement| {
        let outgoing = group
            .units
            .get(placement.unit)
            .and_then(|unit| unit.outgoing.get(placement.outgoing));
        placement.birth == Birth::Available && outgoing.is_some_and(|one| one.due == Due::Now)
    };
    if written.has_woken || group.placements.iter().any(is_for_others) {
        store.nudge();
    }
}

fn outcome(word: i16) -> Outcome {
    match word {
        0 => Outcome::Committed,
        1 => Outcome::Duplicate,
        _ => Outcome::Conflict,
    }
}
