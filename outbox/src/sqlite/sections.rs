//! The statements of a commit call, section by section, in the order in which they run.
//!
//! A group is one text made of the sections that it needs, and one list of arguments: JSON arrays
//! of small rows, whose bytes lie in one blob beside them (`$1`, the arena). So a text depends on
//! what kinds of things a group has and not on how many, and stays prepared.
//!
//! Sections whose counts decide about outcomes end in a guard, which fails the text on purpose
//! when a count is not what it is for a group without losers.

use super::clock::{deferral, never, now};

/// The numbers of the arguments; each section's JSON, then what its guard expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Slot {
    Arena = 1,
    RoutesVersion = 2,
    Lease = 3,
    Deletes = 4,
    Releases = 5,
    Parks = 6,
    Solos = 7,
    Inbox = 8,
    InboxCount = 9,
    Rows = 10,
    RowsCount = 11,
    Updates = 12,
    UpdatesCount = 13,
    Creates = 14,
    CreatesCount = 15,
    Disarmed = 16,
    Plain = 17,
    Special = 18,
    History = 19,
    Dead = 20,
    Versions = 21,
    Unlabelled = 22,
    Labels = 23,
    Held = 24,
    HeldCount = 25,
    Stubs = 26,
}

/// How many arguments there are.
pub(super) const SLOTS: usize = 26;

/// What a failed guard says; nothing else in these texts parses JSON that is not our own.
pub(super) const GUARD_MESSAGE: &str = "malformed JSON";

pub(super) const BEGIN: &str = "begin immediate;";

pub(super) const COMMIT: &str = "commit;";

/// Around what may have to be taken back inside a transaction that goes on.
pub(super) const SAVE: &str = "savepoint sagabus_write;";

pub(super) const KEEP: &str = "release sagabus_write;";

pub(super) const TAKE_BACK: &str = "rollback to sagabus_write; release sagabus_write;";

/// Fails when the placements were made by other routes; null where nothing is sent.
pub(super) const GUARD_ROUTES: &str =
    "select json('!') from sagabus_store where routes_version <> $2;";

/// Pulls forward the next row of each ordered key whose oldest row is about to go, but never before
/// its own time. One that was claimed before is leased or backs off: its time is its own; a redriven
/// one was claimed, but not in this life. A stub is never pulled.
macro_rules! pull {
    ($rows:literal, $path:literal, $is_going:literal) => {
        concat!(
            "update sagabus_outbox set available_at = max(",
            now!(),
            ", coalesce(due_at, 0)) where (epoch = 0 or starts = 0) and available_at < ",
            never!(),
            " and id in (",
            "select (select min(n.id) from sagabus_outbox n where n.destination = o.destination ",
            "and n.key = o.key and n.per_key = 1 and n.parked is null and n.id > o.id and n.id ",
            "not in (select value ->> 0 from json_each(",
            $rows,
            "))) from json_each(",
            $rows,
            ") e cross join sagabus_outbox o ",
            $path,
            " on ",
            $is_going,
            " and o.per_key = 1 and o.parked is null);"
        )
    };
    ($rows:literal) => {
        pull!(
            $rows,
            "not indexed",
            "o.id = e.value ->> 0 and o.epoch = e.value ->> 1"
        )
    };
}

/// Finds the rows that are still of their epoch, and not an operator's.
///
/// `not indexed` leaves the way by id only: statistics that were taken while the outbox was empty,
/// which is its usual state, make a scan of a partial index look cheaper.
macro_rules! still_ours {
    ($rows:literal) => {
        concat!(
            "(select o.id from json_each(",
            $rows,
            ") e cross join sagabus_outbox o not indexed on o.id = e.value ->> 0 ",
            "and o.epoch = e.value ->> 1 and o.parked is null)"
        )
    };
}

/// Rows: id, epoch, microseconds from now until when it is kept, if it is. Copies what a broker took
/// before it is deleted.
pub(super) const KEEP_SENT: &[&str] = &[concat!(
    "insert into sagabus_sent (id, message_id, message_type, destination, key, per_key, headers, ",
    "body, expires_at, sent_at, kept_until) select o.id, o.message_id, o.message_type, ",
    "o.destination, o.key, o.per_key, o.headers, o.body, o.expires_at, ",
    now!(),
    ", ",
    now!(),
    " + (e.value ->> 2) from json_each($4) e cross join sagabus_outbox o not indexed ",
    "on o.id = e.value ->> 0 and o.epoch = e.value ->> 1 and o.parked is null ",
    "where e.value ->> 2 is not null on conflict do nothing;"
)];

/// Rows: id, epoch, and more where it is kept.
pub(super) const SETTLE_DELETES: &[&str] = &[
    pull!("$4"),
    concat!(
        "delete from sagabus_outbox where id in ",
        still_ours!("$4"),
        ";"
    ),
];

/// Rows: id, epoch, microseconds from now, start given back, attempts at, attempts length,
/// failures; the last null where attempts stay. Starts never fall below failures, which also bounds
/// what a group in doubt gives back when it is settled again.
pub(super) const SETTLE_RELEASES: &[&str] = &[concat!(
    "update sagabus_outbox as o set available_at = ",
    now!(),
    " + e.after, starts = max(o.starts - e.back, coalesce(e.failures, o.failures)), ",
    "failures = coalesce(e.failures, o.failures), ",
    "solo_starts = iif(e.failures is null, o.solo_starts, 0), ",
    "attempts = iif(e.failures is null, o.attempts, ",
    "iif(e.length = 0, null, substr($1, e.at, e.length))) ",
    "from (select value ->> 0 as id, value ->> 1 as epoch, value ->> 2 as after, ",
    "value ->> 3 as back, value ->> 4 as at, value ->> 5 as length, value ->> 6 as failures ",
    "from json_each($5)) e ",
    "where o.id = e.id and o.epoch = e.epoch;"
)];

/// Rows: id, epoch, reason, attempts at, attempts length, failures.
pub(super) const SETTLE_PARKS: &[&str] = &[
    pull!("$6"),
    concat!(
        "update sagabus_outbox as o set parked = e.reason, failures = e.failures, ",
        "attempts = iif(e.length = 0, null, substr($1, e.at, e.length)) ",
        "from (select value ->> 0 as id, value ->> 1 as epoch, value ->> 2 as reason, ",
        "value ->> 3 as at, value ->> 4 as length, value ->> 5 as failures from json_each($6)) e ",
        "where o.id = e.id and o.epoch = e.epoch;"
    ),
];

/// Rows: id, epoch.
pub(super) const SETTLE_SOLOS: &[&str] = &[concat!(
    "update sagabus_outbox set solo_starts = solo_starts + 1 where id in ",
    still_ours!("$7"),
    ";"
)];

/// Rows: message id at, endpoint id. Takes messages over; one that was taken over before, or one
/// whose identity a caller gave twice, fails the guard.
pub(super) const TAKE_OVER: &[&str] = &[
    concat!(
        "insert into sagabus_inbox (message_id, endpoint_id, accepted_at) ",
        "select substr($1, value ->> 0, 16), value ->> 1, ",
        now!(),
        " from json_each($8) where true on conflict do nothing;"
    ),
    "select json('!') where changes() <> $9;",
];

/// Rows: id, epoch. Accepts rows by deleting them; one that is not of its epoch fails the guard.
pub(super) const ACCEPT_ROWS: &[&str] = &[
    pull!("$10"),
    concat!(
        "delete from sagabus_outbox where id in ",
        still_ours!("$10"),
        ";"
    ),
    "select json('!') where changes() <> $11;",
];

/// Rows: id, epoch. Accepts rows whose dead letters hold their keys: one that stands in a line
/// becomes a stub, with a later epoch, so that nobody who had it can settle or extend it; any other
/// goes. One that is not of its epoch fails the guard.
pub(super) const HOLD_ROWS: &[&str] = &[
    concat!(
        "select json('!') where $25 <> (select count(*) from ",
        still_ours!("$24"),
        ");"
    ),
    concat!(
        "delete from sagabus_outbox where per_key = 0 and id in ",
        still_ours!("$24"),
        ";"
    ),
    concat!(
        "update sagabus_outbox set headers = x'7b7d', body = x'', available_at = ",
        never!(),
        ", due_at = null, expires_at = null, epoch = epoch + 1, starts = 0, failures = 0, ",
        "solo_starts = 0, attempts = null, timer_kind = null, timer_key = null, ",
        "timer_name = null, timer_generation = null where id in ",
        still_ours!("$24"),
        ";"
    ),
];

/// Rows: message id at, type, destination, key. Stubs of what a broker brought; of each message one.
pub(super) const HOLD_OTHERS: &[&str] = &[concat!(
    "insert into sagabus_outbox (message_id, message_type, destination, key, per_key, headers, ",
    "body, available_at, epoch, created_at) ",
    "select substr($1, value ->> 0, 16), value ->> 1, value ->> 2, value ->> 3, 1, x'7b7d', x'', ",
    never!(),
    ", 1, ",
    now!(),
    " from json_each($26) where not exists (select 1 from sagabus_outbox o ",
    "where o.destination = value ->> 2 and o.key = value ->> 3 and o.per_key = 1 ",
    "and o.parked is null and o.available_at = ",
    never!(),
    " and o.message_id = substr($1, value ->> 0, 16));"
)];

/// Rows: id, epoch. Removes stubs, so that whoever stood behind them comes next; asked by an operator.
pub(super) const DROP_STUBS: &[&str] = &[
    pull!("$1"),
    concat!(
        "delete from sagabus_outbox where id in ",
        still_ours!("$1"),
        ";"
    ),
];

/// Rows: id, epoch. Sets rows aside for an operator; whoever stood behind them comes next.
pub(super) const PARK_ROWS: &[&str] = &[
    pull!("$1"),
    concat!(
        "update sagabus_outbox set parked = 'operator', epoch = epoch + 1 where id in ",
        still_ours!("$1"),
        ";"
    ),
];

/// Rows: kind, key, expected version, version, completed, state, schema version, data at, data
/// length, timers at, timers length, origin at, origin length (0: none).
pub(super) const UPDATE_INSTANCES: &[&str] = &[
    concat!(
        "update sagabus_instance set version = e.value ->> 3, completed = e.value ->> 4, ",
        "state = e.value ->> 5, schema_version = e.value ->> 6, ",
        "data = substr($1, e.value ->> 7, e.value ->> 8), ",
        "timers = substr($1, e.value ->> 9, e.value ->> 10), ",
        "origin = iif(e.value ->> 12 = 0, null, substr($1, e.value ->> 11, e.value ->> 12)), ",
        "updated_at = ",
        now!(),
        " from json_each($12) e where sagabus_instance.kind = e.value ->> 0 ",
        "and sagabus_instance.key = e.value ->> 1 and sagabus_instance.version = e.value ->> 2;"
    ),
    "select json('!') where changes() <> $13;",
];

/// Rows as of [`UPDATE_INSTANCES`].
pub(super) const CREATE_INSTANCES: &[&str] = &[
    concat!(
        "insert into sagabus_instance (kind, key, version, completed, state, schema_version, ",
        "data, timers, origin, created_at, updated_at) ",
        "select value ->> 0, value ->> 1, value ->> 3, value ->> 4, value ->> 5, value ->> 6, ",
        "substr($1, value ->> 7, value ->> 8), substr($1, value ->> 9, value ->> 10), ",
        "iif(value ->> 12 = 0, null, substr($1, value ->> 11, value ->> 12)), ",
        now!(),
        ", ",
        now!(),
        " from json_each($14) where true on conflict do nothing;"
    ),
    "select json('!') where changes() <> $15;",
];

/// Rows: kind, key. First everything goes that is let go: labels may change hands in one group.
pub(super) const UNLABEL: &[&str] = &[
    "delete from sagabus_label where (kind, name, value) in (select l.kind, l.name, l.value \
    from json_each($22) e cross join sagabus_label l indexed by sagabus_label_owner \
    on l.kind = e.value ->> 0 and l.key = e.value ->> 1);",
];

/// Rows: kind, key, name, value. What is over gives up what another needs; a label of another
/// running instance is refused by the primary key.
pub(super) const LABEL: &[&str] = &[
    "delete from sagabus_label where (kind, name, value) in (select l.kind, l.name, l.value \
    from json_each($23) e cross join sagabus_label l not indexed \
    on l.kind = e.value ->> 0 and l.name = e.value ->> 2 and l.value = e.value ->> 3 \
    where not exists (select 1 from sagabus_instance i \
        where i.kind = l.kind and i.key = l.key and i.completed = 0));",
    "insert into sagabus_label (kind, key, name, value) select value ->> 0, value ->> 1, \
    value ->> 2, value ->> 3 from json_each($23);",
];

/// Rows: kind, key, name.
pub(super) const DISARM_TIMERS: &[&str] = &[
    pull!(
        "$16",
        "indexed by sagabus_outbox_timer",
        "o.timer_kind = e.value ->> 0 and o.timer_key = e.value ->> 1 \
        and o.timer_name = e.value ->> 2 and o.timer_name is not null"
    ),
    "delete from sagabus_outbox where id in (select o.id from json_each($16) e \
    cross join sagabus_outbox o indexed by sagabus_outbox_timer \
    on o.timer_kind = e.value ->> 0 and o.timer_key = e.value ->> 1 \
    and o.timer_name = e.value ->> 2 and o.timer_name is not null);",
];

/// Rows: message id at (headers and body follow it), headers length, body at, body length, type,
/// destination, key, microseconds from now, leased.
///
/// For rows without order, timer, attempts, expiry or a fixed time: most of them. Nothing is read
/// back, because ids are given in order.
pub(super) const SEND_PLAIN: &[&str] = &[concat!(
    "insert into sagabus_outbox (message_id, headers, body, message_type, destination, key, ",
    "available_at, epoch, starts, created_at) ",
    "select substr($1, value ->> 0, 16), substr($1, (value ->> 0) + 16, value ->> 1), ",
    "substr($1, value ->> 2, value ->> 3), value ->> 4, value ->> 5, value ->> 6, ",
    now!(),
    " + (value ->> 7), value ->> 8, value ->> 8, ",
    now!(),
    " from json_each($17);"
)];

/// Rows: as of [`SEND_PLAIN`] up to key, then (7) microseconds from now, (8) fixed time, (9)
/// leased, (10) ordered, (11) follows another row of this group, (12) microseconds until it
/// expires, (13) failures, (14) attempts at, (15) attempts length, (16) parked, (17) timer kind,
/// (18) timer key, (19) timer name, (20) timer generation.
///
/// Returns id and epoch of each, in the order of ids, which is the order of rows.
pub(super) const SEND_SPECIAL: &[&str] = &[concat!(
    "with wanted as materialized (select key as place, value as v, ",
    now!(),
    " as now, max(",
    now!(),
    ", coalesce(value ->> 8, ",
    now!(),
    " + (value ->> 7))) as due, value ->> 10 = 1 and value ->> 16 is null and (value ->> 11 = 1 ",
    "or exists (select 1 from sagabus_outbox n where n.destination = value ->> 5 ",
    "and n.key = value ->> 6 and n.per_key = 1 and n.parked is null)) as is_behind ",
    "from json_each($18)) ",
    "insert into sagabus_outbox (message_id, headers, body, message_type, destination, key, ",
    "available_at, due_at, epoch, starts, per_key, expires_at, failures, attempts, parked, ",
    "timer_kind, timer_key, timer_name, timer_generation, created_at) ",
    "select substr($1, v ->> 0, 16), substr($1, (v ->> 0) + 16, v ->> 1), ",
    "substr($1, v ->> 2, v ->> 3), v ->> 4, v ->> 5, v ->> 6, ",
    "case when is_behind then max(due, now + ",
    deferral!(),
    ") when v ->> 9 = 1 and due <= now then now + $3 else due end, ",
    "iif(due > now, due, null), ",
    "v ->> 9 = 1 and due <= now and not is_behind, ",
    "(v ->> 13) + (v ->> 9 = 1 and due <= now and not is_behind), ",
    "v ->> 10, due + (v ->> 12), v ->> 13, ",
    "iif(v ->> 15 = 0, null, substr($1, v ->> 14, v ->> 15)), v ->> 16, ",
    "v ->> 17, v ->> 18, v ->> 19, v ->> 20, now ",
    "from wanted order by place returning id, epoch;"
)];

/// Rows: message id at (correlation id and detail follow it), detail length, endpoint id, type,
/// kind, key, version.
pub(super) const RECORD: &[&str] = &[concat!(
    "insert into sagabus_history (at, message_id, correlation_id, detail, endpoint_id, ",
    "message_type, kind, key, version) ",
    "select ",
    now!(),
    ", substr($1, value ->> 0, 16), substr($1, (value ->> 0) + 16, 16), ",
    "substr($1, (value ->> 0) + 32, value ->> 1), value ->> 2, value ->> 3, value ->> 4, ",
    "value ->> 5, value ->> 6 from json_each($19);"
)];

/// Rows: message id at (headers and body follow it), headers length, body at, body length, type,
/// endpoint, reason, key, instance kind, instance key, attempts at, attempts length, fingerprint.
pub(super) const GIVE_UP: &[&str] = &[concat!(
    "insert into sagabus_dead_letter (at, message_id, headers, body, message_type, endpoint, ",
    "reason, key, kind, instance_key, attempts, fingerprint) ",
    "select ",
    now!(),
    ", substr($1, value ->> 0, 16), substr($1, (value ->> 0) + 16, value ->> 1), ",
    "substr($1, value ->> 2, value ->> 3), value ->> 4, value ->> 5, value ->> 6, value ->> 7, ",
    "value ->> 8, value ->> 9, substr($1, value ->> 10, value ->> 11), value ->> 12 ",
    "from json_each($20) where true ",
    "on conflict (endpoint, message_id) where status = 'open' do update set at = excluded.at, ",
    "headers = excluded.headers, body = excluded.body, reason = excluded.reason, ",
    "key = excluded.key, kind = excluded.kind, instance_key = excluded.instance_key, ",
    "attempts = excluded.attempts, fingerprint = excluded.fingerprint;"
)];

/// Asks by which routes placements are to be made, which messages were taken over before, which
/// rows are gone, and at which versions instances are. For groups that have losers.
pub(super) const PROBE: &[&str] = &[
    "select routes_version from sagabus_store;",
    "select e.key from json_each($8) e cross join sagabus_inbox i \
    on i.message_id = substr($1, e.value ->> 0, 16) and i.endpoint_id = e.value ->> 1;",
    "select e.key from json_each($10) e where not exists (select 1 from sagabus_outbox o \
    not indexed where o.id = e.value ->> 0 and o.epoch = e.value ->> 1 and o.parked is null);",
    "select e.key, i.version from json_each($21) e cross join sagabus_instance i \
    on i.kind = e.value ->> 0 and i.key = e.value ->> 1;",
];
