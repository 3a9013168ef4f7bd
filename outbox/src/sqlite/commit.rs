//! The commit call: settles, sources, instances, then what winners send and record.
//!
//! First all units are written as if none could lose, in one call of the driver, with guards that
//! compare counts. Where a guard fails, everything is rolled back and done again: settle, ask who
//! wins, write the winners. Nobody else writes meanwhile, so what was asked stays true.

use std::collections::{HashMap, HashSet};

use sagabus_core::StoreError;
use sagabus_core::store::{CommitReport, Group, Placement};
use sagabus_core::unit_of_work::{Outcome, RowKey, Source, UnitOfWork};
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{AssertSqlSafe, Row};

use super::attach;
use super::encode::{Encoded, check, given};
use super::error::{commit_error, store_error};
use super::sections::{
    ACCEPT_ROWS, BEGIN, COMMIT, CREATE_INSTANCES, DISARM_TIMERS, GIVE_UP, GUARD_MESSAGE,
    GUARD_ROUTES, HOLD_OTHERS, HOLD_ROWS, KEEP, KEEP_SENT, LABEL, PROBE, RECORD, SAVE, SEND_PLAIN,
    SEND_SPECIAL, SETTLE_DELETES, SETTLE_PARKS, SETTLE_RELEASES, SETTLE_SOLOS, TAKE_BACK,
    TAKE_OVER, UNLABEL, UPDATE_INSTANCES,
};
use super::store::SqliteStore;
use super::writer::{Reply, Write, run};

/// Writes a group in one transaction.
pub(super) async fn commit(store: &SqliteStore, group: &Group) -> Result<CommitReport, StoreError> {
    check(group)?;
    let winners = vec![true; group.units.len()];
    let call = Call::whole(group, &winners)?;
    let mut write = store.write().await?;
    let written = match write.whole(AssertSqlSafe(call.text), call.arguments).await {
        Ok(replies) => call.reading.read(&replies, group)?,
        Err(error) if is_guard(&error) => commit_with_losers(&mut write, group).await?,
        Err(error) => return Err(commit_error(error)),
    };
    drop(write);
    if written.has_available {
        store.wakeups().nudge();
    }
    Ok(written.report)
}

/// Settles, asks who wins, writes the winners and commits.
async fn commit_with_losers(write: &mut Write, group: &Group) -> Result<Written, StoreError> {
    write.step(BEGIN, SqliteArguments::default()).await?;
    let written = write_winners(write.connection().await?, group).await;
    match written.is_ok() {
        true => write.commit().await?,
        false => write.rollback().await,
    }
    written
}

/// Writes a group inside a transaction that somebody else ends: as a whole where nobody loses, else
/// the winners.
pub(super) async fn write_inside(
    connection: &mut SqliteConnection,
    group: &Group,
) -> Result<Written, StoreError> {
    check(group)?;
    let winners = vec![true; group.units.len()];
    let call = Call::inside(group, &winners)?;
    match run(connection, AssertSqlSafe(call.text), call.arguments).await {
        Ok(replies) => return call.reading.read(&replies, group),
        Err(error) => {
            let taken_back = run(connection, TAKE_BACK, SqliteArguments::default()).await;
            if !is_guard(&error) {
                return Err(store_error(error));
            }
            taken_back.map_err(store_error)?;
        }
    }
    write_winners(connection, group).await
}

/// Settles, asks who wins and writes the winners, inside an open transaction.
async fn write_winners(
    connection: &mut SqliteConnection,
    group: &Group,
) -> Result<Written, StoreError> {
    let mut script = Script::default();
    let (encoded, _) = Call::settles(group, &mut script);
    let probe = Probe::new(group, encoded, &mut script);
    let arguments = probe.encoded.arguments(group)?;
    let replies = run(connection, AssertSqlSafe(script.text), arguments)
        .await
        .map_err(store_error)?;
    let asked = Asked::read(&replies[probe.at..], &probe.asked)?;
    let is_placed = group.units.iter().any(|unit| !unit.outgoing.is_empty());
    if is_placed && asked.routes_version != group.routes_version {
        let routes = attach::routes(connection).await?;
        return Err(StoreError::StaleRoutes(Box::new(routes)));
    }
    let has_pulled = replies.iter().take(probe.at).any(|reply| reply.changes > 0);
    let (outcomes, dropped) = decide(group, &asked);
    let winners: Vec<bool> = outcomes
        .iter()
        .map(|outcome| *outcome == Outcome::Committed)
        .collect();
    let call = Call::winners(group, &winners, &dropped)?;
    let replies = match call.text.is_empty() {
        true => Vec::new(),
        false => run(connection, AssertSqlSafe(call.text), call.arguments)
            .await
            .map_err(store_error)?,
    };
    let mut written = call.reading.read(&replies, group)?;
    written.has_available |= has_pulled;
    written.report.outcomes = outcomes;
    Ok(written)
}

/// Says whether a guard failed, which is no error.
fn is_guard(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.message() == GUARD_MESSAGE)
}

/// Statements that run in one call, and how many there are.
#[derive(Debug, Default)]
struct Script {
    text: String,
    count: usize,
}

impl Script {
    fn begin() -> Self {
        let mut script = Self::default();
        script.add(&[BEGIN]);
        script
    }

    /// Appends statements and returns the number of the first.
    fn add(&mut self, statements: &[&str]) -> usize {
        let at = self.count;
        for statement in statements {
            self.text.push_str(statement);
        }
        self.count += statements.len();
        at
    }

    /// Appends a section that has rows.
    fn section(&mut self, n_rows: i64, statements: &[&str]) -> Option<usize> {
        (n_rows > 0).then(|| self.add(statements))
    }
}

/// One call of the driver, and how to read its replies.
struct Call {
    text: String,
    arguments: SqliteArguments,
    reading: Reading,
}

impl Call {
    /// Makes the text that settles, writes all units and commits.
    fn whole(group: &Group, winners: &[bool]) -> Result<Self, StoreError> {
        let mut script = Script::begin();
        script.add(&[GUARD_ROUTES]);
        let (encoded, pulls) = Self::settles(group, &mut script);
        let dropped = HashSet::new();
        let mut call = Self::writes(group, winners, &dropped, encoded, script)?;
        call.reading.pulls.extend(pulls);
        call.text.push_str(COMMIT);
        Ok(call)
    }

    /// Makes the text that settles and writes all units inside an open transaction, so that it can
    /// be taken back.
    fn inside(group: &Group, winners: &[bool]) -> Result<Self, StoreError> {
        let mut script = Script::default();
        script.add(&[SAVE, GUARD_ROUTES]);
        let (encoded, pulls) = Self::settles(group, &mut script);
        let dropped = HashSet::new();
        let mut call = Self::writes(group, winners, &dropped, encoded, script)?;
        call.reading.pulls.extend(pulls);
        call.text.push_str(KEEP);
        Ok(call)
    }

    /// Makes the text that writes the winners inside an open transaction.
    fn winners(
        group: &Group,
        winners: &[bool],
        dropped: &HashSet<usize>,
    ) -> Result<Self, StoreError> {
        Self::writes(group, winners, dropped, Encoded::new(), Script::default())
    }

    /// Adds the settles, and returns where rows are pulled forward.
    fn settles(group: &Group, script: &mut Script) -> (Encoded, Vec<usize>) {
        let mut encoded = Encoded::new();
        for settle in &group.settles {
            encoded.settle(settle);
        }
        script.section(i64::from(encoded.keeps), KEEP_SENT);
        let deletes = script.section(encoded.deletes.count, SETTLE_DELETES);
        script.section(encoded.releases.count, SETTLE_RELEASES);
        let parks = script.section(encoded.parks.count, SETTLE_PARKS);
        script.section(encoded.solos.count, SETTLE_SOLOS);
        (encoded, deletes.into_iter().chain(parks).collect())
    }

    /// Adds what winners write; `dropped` are placements whose given identity is known already.
    fn writes(
        group: &Group,
        winners: &[bool],
        dropped: &HashSet<usize>,
        mut encoded: Encoded,
        mut script: Script,
    ) -> Result<Self, StoreError> {
        for (unit, _) in group.units.iter().zip(winners).filter(|(_, wins)| **wins) {
            encoded.unit(unit);
        }
        let written = || {
            let places = group.placements.iter().enumerate();
            places.filter(|(place, one)| winners[one.unit] && !dropped.contains(place))
        };
        for (message_id, endpoint) in written().filter_map(|(_, one)| given(group, one)) {
            encoded.take_over(&message_id, endpoint);
        }
        encoded.send(group, written());
        script.section(encoded.inbox.count, TAKE_OVER);
        let rows = script.section(encoded.rows.count, ACCEPT_ROWS);
        script.section(encoded.held.count, HOLD_ROWS);
        script.section(encoded.updates.count, UPDATE_INSTANCES);
        script.section(encoded.creates.count, CREATE_INSTANCES);
        script.section(encoded.unlabelled.count, UNLABEL);
        script.section(encoded.labels.count, LABEL);
        script.section(encoded.disarmed.count, DISARM_TIMERS);
        let plain = script.section(encoded.plain.count, SEND_PLAIN);
        let special = script.section(encoded.special.count, SEND_SPECIAL);
        script.section(encoded.history.count, RECORD);
        script.section(encoded.dead.count, GIVE_UP);
        script.section(encoded.stubs.count, HOLD_OTHERS);
        let reading = Reading {
            pulls: rows.into_iter().collect(),
            plain,
            plain_places: std::mem::take(&mut encoded.plain_places),
            special,
            special_places: std::mem::take(&mut encoded.special_places),
            has_available: encoded.has_available,
        };
        Ok(Self {
            text: script.text,
            arguments: encoded.arguments(group)?,
            reading,
        })
    }
}

/// Where in the replies of a call its results are.
struct Reading {
    /// Statements that pull rows forward.
    pulls: Vec<usize>,
    plain: Option<usize>,
    plain_places: Vec<(usize, bool)>,
    special: Option<usize>,
    special_places: Vec<usize>,
    has_available: bool,
}

/// What a call wrote.
pub(super) struct Written {
    pub(super) report: CommitReport,
    /// Rows are there that somebody else may want at once.
    pub(super) has_available: bool,
}

impl Reading {
    fn read(self, replies: &[Reply], group: &Group) -> Result<Written, StoreError> {
        let mut leased = vec![None; group.placements.len()];
        if let Some(reply) = self.plain.and_then(|at| replies.get(at)) {
            // Ids of one statement are given in its rows' order: the last is known, so all are.
            let ids = (1..=reply.last_id).rev();
            for ((place, is_leased), id) in self.plain_places.iter().rev().zip(ids) {
                leased[*place] = is_leased.then_some(RowKey { id, epoch: 1 });
            }
        }
        if let Some(reply) = self.special.and_then(|at| replies.get(at)) {
            let mut keys = Vec::with_capacity(reply.rows.len());
            for row in &reply.rows {
                let id = row.try_get(0).map_err(store_error)?;
                let epoch = row.try_get(1).map_err(store_error)?;
                keys.push(RowKey { id, epoch });
            }
            keys.sort_unstable_by_key(|key| key.id);
            for (place, key) in self.special_places.iter().zip(keys) {
                leased[*place] = (key.epoch == 1).then_some(key);
            }
        }
        let has_pulled = self
            .pulls
            .iter()
            .any(|at| replies.get(*at).is_some_and(|reply| reply.changes > 0));
        Ok(Written {
            report: CommitReport {
                outcomes: vec![Outcome::Committed; group.units.len()],
                leased,
            },
            has_available: self.has_available || has_pulled,
        })
    }
}

/// What is asked about a group that has losers.
struct Probe {
    encoded: Encoded,
    /// The number of its first statement.
    at: usize,
    asked: Questions,
}

/// What each row of a question is about.
#[derive(Default)]
struct Questions {
    inbox: Vec<([u8; 16], i32)>,
    rows: Vec<RowKey>,
    /// Units with an instance.
    versions: Vec<usize>,
}

impl Probe {
    fn new(group: &Group, mut encoded: Encoded, script: &mut Script) -> Self {
        let mut asked = Questions::default();
        for (at, unit) in group.units.iter().enumerate() {
            for source in &unit.sources {
                encoded.source(source);
                match source {
                    Source::Row(row) => asked.rows.push(*row),
                    Source::Broker { .. } => asked.inbox.extend(inbox_key(source)),
                }
            }
            if let Some(change) = &unit.instance {
                encoded.version_of(change);
                asked.versions.push(at);
            }
        }
        for (message_id, endpoint) in group.placements.iter().filter_map(|one| given(group, one)) {
            encoded.take_over(&message_id, endpoint);
            asked.inbox.push((message_id, endpoint));
        }
        let at = script.add(PROBE);
        Self { encoded, at, asked }
    }
}

fn inbox_key(source: &Source) -> Option<([u8; 16], i32)> {
    match source {
        Source::Broker {
            endpoint,
            message_id,
        } => Some((message_id.as_uuid().into_bytes(), endpoint.0)),
        Source::Row(_) => None,
    }
}

/// What the database said about a group that has losers.
struct Asked {
    routes_version: i64,
    taken_over: HashSet<([u8; 16], i32)>,
    gone: HashSet<RowKey>,
    /// By unit; a unit whose instance does not exist is not in it.
    versions: HashMap<usize, i64>,
}

impl Asked {
    fn read(replies: &[Reply], asked: &Questions) -> Result<Self, StoreError> {
        let [routes, inbox, rows, versions] = replies else {
            return Err(StoreError::Other("a statement gave no reply".into()));
        };
        let numbers = |reply: &Reply, column: usize| -> Result<Vec<i64>, StoreError> {
            let read = |row: &sqlx::sqlite::SqliteRow| row.try_get(column).map_err(store_error);
            reply.rows.iter().map(read).collect()
        };
        let places = |reply: &Reply| -> Result<Vec<usize>, StoreError> {
            let all = numbers(reply, 0)?.into_iter();
            Ok(all.filter_map(|n| usize::try_from(n).ok()).collect())
        };
        let routes_version = numbers(routes, 0)?.first().copied().unwrap_or_default();
        let taken_over = places(inbox)?.into_iter().map(|at| asked.inbox[at]);
        let gone = places(rows)?.into_iter().map(|at| asked.rows[at]);
        let units = places(versions)?.into_iter().map(|at| asked.versions[at]);
        Ok(Self {
            routes_version,
            taken_over: taken_over.collect(),
            gone: gone.collect(),
            versions: units.zip(numbers(versions, 1)?).collect(),
        })
    }
}

/// Decides who wins: Duplicate before Conflict, the first of two with one source or one instance.
///
/// Also returns the placements of winners whose given identity is known already.
fn decide(group: &Group, asked: &Asked) -> (Vec<Outcome>, HashSet<usize>) {
    let mut taken_over = asked.taken_over.clone();
    let mut gone = asked.gone.clone();
    let mut moved = HashSet::new();
    let mut outcomes = Vec::with_capacity(group.units.len());
    for (at, unit) in group.units.iter().enumerate() {
        let outcome = decide_unit(unit, asked.versions.get(&at), &taken_over, &gone, &moved);
        if outcome == Outcome::Committed {
            taken_over.extend(unit.sources.iter().filter_map(inbox_key));
            gone.extend(unit.sources.iter().filter_map(row_key));
            moved.extend(unit.instance.as_ref().map(|change| &change.id));
        }
        outcomes.push(outcome);
    }
    let is_known = |(place, one): (usize, &Placement)| {
        let wins = outcomes[one.unit] == Outcome::Committed;
        let key = given(group, one).filter(|_| wins)?;
        (!taken_over.insert(key)).then_some(place)
    };
    let dropped = group.placements.iter().enumerate().filter_map(is_known);
    let dropped = dropped.collect();
    (outcomes, dropped)
}

fn decide_unit<'a>(
    unit: &'a UnitOfWork,
    version: Option<&i64>,
    taken_over: &HashSet<([u8; 16], i32)>,
    gone: &HashSet<RowKey>,
    moved: &HashSet<&'a sagabus_core::InstanceId>,
) -> Outcome {
    let is_known = |source: &&Source| match source {
        Source::Row(row) => gone.contains(row),
        Source::Broker { .. } => inbox_key(source).is_some_and(|key| taken_over.contains(&key)),
    };
    // A merged unit is all or none: where only a part was taken over, the rest is run again.
    match unit.sources.iter().filter(is_known).count() {
        0 => {}
        n if n == unit.sources.len() => return Outcome::Duplicate,
        _ => return Outcome::Conflict,
    }
    if unit.names_a_source_twice() {
        return Outcome::Conflict;
    }
    let has_moved = unit.instance.as_ref().is_some_and(|change| {
        change.expected != version.copied().unwrap_or(0) || moved.contains(&change.id)
    });
    match has_moved {
        true => Outcome::Conflict,
        false => Outcome::Committed,
    }
}

fn row_key(source: &Source) -> Option<RowKey> {
    match source {
        Source::Row(row) => Some(*row),
        Source::Broker { .. } => None,
    }
}
