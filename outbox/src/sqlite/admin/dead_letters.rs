//! Dead letters: lists, groups, sums.

use sagabus_core::admin::{
    DeadLetterFilter, DeadLetterGroup, DeadLetterStatus, First, Page, StoredDeadLetter, Tally,
};
use sagabus_core::{StoreError, Timestamp};
use sqlx::Arguments;
use sqlx::sqlite::SqliteArguments;

use super::super::error::store_error;
use super::super::store::SqliteStore;
use crate::found;

/// What the group index knows: `$1` status, `$2` endpoint, `$3` fingerprint, `$4` text in it,
/// `$5` and `$6` the earliest and the latest time, `$7` and `$8` the id and the largest id.
macro_rules! narrow {
    () => {
        concat!(
            "status between coalesce($1, '') and coalesce($1, '~') ",
            "and ($2 is null or endpoint = $2) and ($3 is null or fingerprint = $3) ",
            "and ($4 is null or instr(lower(fingerprint), lower($4)) > 0) ",
            "and ($5 is null or at >= $5) and ($6 is null or at < $6) ",
            "and ($7 is null or id = $7) and ($8 is null or id <= $8)"
        )
    };
}

/// What only the rows know, too: `$9` type, `$10` reason, `$11` key, `$12` message, `$13` and `$14`
/// name and value of a label of the instance.
macro_rules! wide {
    () => {
        concat!(
            narrow!(),
            " and ($9 is null or message_type = $9) and ($10 is null or reason = $10) ",
            "and ($11 is null or key = $11) and ($12 is null or message_id = $12) ",
            "and ($13 is null or (kind, instance_key) in (select l.kind, l.key ",
            "from sagabus_label l where l.name = $13 and l.value = $14))"
        )
    };
}

pub(super) use narrow;
pub(super) use wide;

/// Finds the few rows of a key or of a message by their own index.
macro_rules! by {
    ("key") => {
        concat!(wide!(), " and key = $11")
    };
    ("message") => {
        concat!(wide!(), " and message_id = $12")
    };
}

macro_rules! columns {
    () => {
        "select id, status, endpoint, message_id, message_type, headers, substr(body, 1, $15), \
         length(body), reason, key, kind, instance_key, fingerprint, attempts, at \
         from sagabus_dead_letter where "
    };
}

/// `$16` and `$17`: behind which id, and how many.
macro_rules! latest {
    ($filter:expr) => {
        concat!(
            columns!(),
            $filter,
            " and ($16 is null or id < $16) order by id desc limit $17"
        )
    };
}

macro_rules! oldest {
    ($filter:expr) => {
        concat!(
            columns!(),
            $filter,
            " and ($16 is null or id > $16) order by id limit $17"
        )
    };
}

macro_rules! groups {
    ($filter:expr) => {
        groups!($filter, "")
    };
    ($filter:expr, $by:literal) => {
        concat!(
            "select endpoint, fingerprint, count(*) as n, min(at), max(at), max(id) ",
            "from sagabus_dead_letter",
            $by,
            " where ",
            $filter,
            " group by endpoint, fingerprint order by n desc, endpoint, fingerprint limit $15"
        )
    };
}

macro_rules! count {
    ($filter:expr) => {
        count!($filter, "")
    };
    ($filter:expr, $by:literal) => {
        concat!(
            "select count(*), min(at), max(at), max(id) from sagabus_dead_letter",
            $by,
            " where ",
            $filter
        )
    };
}

/// The index that has all that a narrow question asks for: statistics make another one look better,
/// by which every row would be read.
macro_rules! covered {
    ($what:ident) => {
        $what!(narrow!(), " indexed by sagabus_dead_letter_group")
    };
}

/// The texts of a question, by what the filter looks at.
pub(in crate::sqlite) struct Texts {
    pub(in crate::sqlite) latest: &'static str,
    pub(in crate::sqlite) oldest: &'static str,
    pub(in crate::sqlite) groups: &'static str,
    pub(in crate::sqlite) count: &'static str,
}

pub(in crate::sqlite) const NARROW: Texts = Texts {
    latest: latest!(wide!()),
    oldest: oldest!(wide!()),
    groups: covered!(groups),
    count: covered!(count),
};

const WIDE: Texts = Texts {
    groups: groups!(wide!()),
    count: count!(wide!()),
    ..NARROW
};

pub(in crate::sqlite) const BY_KEY: Texts = Texts {
    latest: latest!(by!("key")),
    oldest: oldest!(by!("key")),
    groups: groups!(by!("key")),
    count: count!(by!("key")),
};

pub(in crate::sqlite) const BY_MESSAGE: Texts = Texts {
    latest: latest!(by!("message")),
    oldest: oldest!(by!("message")),
    groups: groups!(by!("message")),
    count: count!(by!("message")),
};

fn texts(filter: &DeadLetterFilter) -> &'static Texts {
    if filter.message.is_some() {
        &BY_MESSAGE
    } else if filter.key.is_some() {
        &BY_KEY
    } else if filter.message_type.is_some() || filter.reason.is_some() || filter.label.is_some() {
        &WIDE
    } else {
        &NARROW
    }
}

/// Reads dead letters.
pub(super) async fn list(
    store: &SqliteStore,
    filter: &DeadLetterFilter,
    page: Page,
) -> Result<Vec<StoredDeadLetter>, StoreError> {
    let texts = texts(filter);
    let text = match page.first {
        First::Latest => texts.latest,
        First::Oldest => texts.oldest,
    };
    let mut arguments = arguments(filter)?;
    add(&mut arguments, page.body_bytes_max)?;
    add(&mut arguments, page.after)?;
    add(&mut arguments, page.size())?;
    let rows = sqlx::query_with(text, arguments)
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    rows.iter()
        .map(|row| found::dead_letter(row).map_err(store_error))
        .collect()
}

/// Groups dead letters by endpoint and fingerprint, the largest first.
pub(super) async fn groups(
    store: &SqliteStore,
    filter: &DeadLetterFilter,
    limit: u32,
) -> Result<Vec<DeadLetterGroup>, StoreError> {
    let mut arguments = arguments(filter)?;
    add(&mut arguments, Page::latest(limit).size())?;
    let rows = sqlx::query_with(texts(filter).groups, arguments)
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    rows.iter()
        .map(|row| found::group(row).map_err(store_error))
        .collect()
}

/// Counts what a filter lets through.
pub(super) async fn count(
    store: &SqliteStore,
    filter: &DeadLetterFilter,
) -> Result<Tally, StoreError> {
    let row = sqlx::query_with(texts(filter).count, arguments(filter)?)
        .fetch_one(store.reader())
        .await
        .map_err(store_error)?;
    found::tally(&row).map_err(store_error)
}

pub(super) fn arguments(filter: &DeadLetterFilter) -> Result<SqliteArguments, StoreError> {
    filter.check()?;
    let mut arguments = SqliteArguments::default();
    let to = &mut arguments;
    add(to, filter.status.map(DeadLetterStatus::as_str))?;
    add(to, filter.endpoint.clone())?;
    add(to, filter.fingerprint.clone())?;
    add(to, filter.text.clone())?;
    add(to, filter.since.map(Timestamp::as_micros))?;
    add(to, filter.until.map(Timestamp::as_micros))?;
    add(to, filter.id)?;
    add(to, filter.id_max)?;
    add(to, filter.message_type.clone())?;
    add(to, filter.reason.clone())?;
    add(to, filter.key.clone())?;
    add(to, filter.message.map(|id| id.as_uuid()))?;
    add(to, filter.label.as_ref().map(|one| one.name.to_string()))?;
    add(to, filter.label.as_ref().map(|one| one.value.clone()))?;
    Ok(arguments)
}

pub(super) fn add<'t, T>(arguments: &mut SqliteArguments, value: T) -> Result<(), StoreError>
where
    T: sqlx::Encode<'t, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    arguments.add(value).map_err(StoreError::Refused)
}
