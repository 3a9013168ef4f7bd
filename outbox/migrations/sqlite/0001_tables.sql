-- The tables of sagabus on SQLite: the same as on PostgreSQL, with the prefix `sagabus_`.
-- Times are microseconds since 1970-01-01 UTC; identities are 16 bytes; structured text is JSON.

create table sagabus_store (
    id             blob    not null,            -- this database, for ever
    schema_version integer not null,            -- the last migration that is wholly in place
    routes_version integer not null default 0,  -- grows with every change of a subscription
    created_at     integer not null
) strict;

create table sagabus_endpoint (
    id     integer primary key,
    name   text    not null unique,
    per_key integer not null default 0          -- 1: order is promised per key
) strict;

create table sagabus_subscription (
    message_type text    not null,
    endpoint_id  integer not null references sagabus_endpoint (id),
    kind         text    not null check (kind in ('command', 'event', 'reply')),
    primary key (message_type, endpoint_id)
) strict, without rowid;

create table sagabus_host (
    id           blob    primary key,           -- one process, for the time it lives
    name         text    not null,
    definitions  blob    not null,              -- JSON: routes, machines, versions
    started_at   integer not null,
    heartbeat_at integer not null,
    stopped_at   integer,                       -- null: it runs, or was killed
    behind       integer                        -- its clock, microseconds; null: it never said
) strict;

-- A message that the database has taken over at an endpoint.
create table sagabus_inbox (
    message_id  blob    not null,
    endpoint_id integer not null,
    accepted_at integer not null,
    primary key (message_id, endpoint_id)
) strict, without rowid;

-- A message to send: to a transport's address, or to an endpoint of this database (`@orders`).
create table sagabus_outbox (
    id               integer primary key autoincrement, -- never reused; "older" means smaller
    message_id       blob    not null,
    message_type     text    not null,
    destination      text    not null,
    key              text,
    per_key          integer not null default 0, -- 1: only the oldest row of (destination, key) moves
    headers          blob    not null,           -- JSON object of strings
    body             blob    not null,
    available_at     integer not null,           -- due time, back-off and lease in one
    due_at           integer,                    -- not before; null: at once
    expires_at       integer,
    epoch            integer not null default 0, -- grows with every claim
    starts           integer not null default 0,
    failures         integer not null default 0,
    solo_starts      integer not null default 0,
    attempts         blob,                       -- JSON array
    parked           text,                       -- the reason, while an operator has to decide
    timer_kind       text,                       -- the instance that armed this timer, its name
    timer_key        text,
    timer_name       text,
    timer_generation integer,
    created_at       integer not null
) strict;
create index sagabus_outbox_due on sagabus_outbox (destination, available_at) where parked is null;
create index sagabus_outbox_order on sagabus_outbox (destination, key, id)
    where per_key = 1 and parked is null;
create unique index sagabus_outbox_timer
    on sagabus_outbox (timer_kind, timer_key, timer_name) where timer_name is not null;
-- What is parked: commands that nobody took are under `?` and their type.
create index sagabus_outbox_parked on sagabus_outbox (destination, id) where parked is not null;

-- A saga, a machine or a flow. No index on what changes. Each is a row with a number of its own, found
-- by an index: without one the whole row is the key of a tree whose inner pages hold whole rows, of
-- 4 KiB four to a page and ten pages deep at a million.
create table sagabus_instance (
    id             integer primary key,
    kind           text    not null,
    key            text    not null,
    version        integer not null,
    completed      integer not null default 0,  -- 1: over; the row stays as a tombstone
    state          text,
    schema_version integer not null,
    data           blob    not null,
    timers         blob    not null,            -- JSON object: name to generation
    origin         blob,                        -- JSON: the request that started it
    created_at     integer not null,
    updated_at     integer not null,
    unique (kind, key)
) strict;

-- Second names of instances, such as the number of a payment: each of one running instance.
create table sagabus_label (
    kind  text not null,
    name  text not null,
    value text not null,
    key   text not null,                        -- of the instance that has it
    primary key (kind, name, value)
) strict, without rowid;
create index sagabus_label_owner on sagabus_label (kind, key);

-- A tombstone that is swept takes its labels along.
create trigger sagabus_label_gone after delete on sagabus_instance begin
    delete from sagabus_label where kind = old.kind and key = old.key;
end;

-- What one unit did with one message.
create table sagabus_history (
    id             integer primary key autoincrement,
    at             integer not null,
    endpoint_id    integer not null,
    message_id     blob    not null,
    message_type   text    not null,
    correlation_id blob    not null,
    kind           text,
    key            text,
    version        integer,
    detail         blob    not null             -- JSON
) strict;
-- The life of one message is looked up, however much history there is. Identities grow with time,
-- so that nearly every entry goes to the end.
create index sagabus_history_message on sagabus_history (message_id);

-- A message that stopped being tried.
create table sagabus_dead_letter (
    id           integer primary key autoincrement,
    at           integer not null,
    endpoint     text    not null,
    message_id   blob    not null,
    message_type text    not null,
    reason       text    not null,
    key          text,
    kind         text,
    instance_key text,
    headers      blob    not null,
    body         blob    not null,
    attempts     blob    not null,              -- JSON array
    fingerprint  text    not null,              -- groups errors that differ in ids and numbers only
    status       text    not null default 'open' check (status in ('open', 'redriven', 'discarded'))
) strict;
create unique index sagabus_dead_letter_once
    on sagabus_dead_letter (endpoint, message_id) where status = 'open';
-- Groups are counted from this index alone, and lists of one status begin in it.
create index sagabus_dead_letter_group
    on sagabus_dead_letter (status, endpoint, fingerprint, at);
create index sagabus_dead_letter_status on sagabus_dead_letter (status, id);
create index sagabus_dead_letter_key on sagabus_dead_letter (key) where key is not null;
create index sagabus_dead_letter_message on sagabus_dead_letter (message_id);

-- One operator's change, written with the change in one transaction.
create table sagabus_audit (
    id           integer primary key autoincrement,
    at           integer not null,
    who          text    not null,
    action       text    not null,
    why          text    not null,
    detail       blob    not null,              -- JSON array: an object per row that changed
    operation_id integer,                       -- of which it is a step
    outcome      blob                           -- JSON: what a host made of what it was asked to do
) strict;

-- A bulk change, which outlives the process that drives it.
create table sagabus_operation (
    id          integer primary key autoincrement,
    state       text    not null check (state in ('running', 'paused', 'done', 'cancelled')),
    verb        text    not null check (verb in ('redrive', 'discard', 'restore', 'park_rows',
        'release_rows', 'readdress_rows', 'expedite_rows', 'discard_rows', 'purge_rows',
        'republish_sent')),
    send_to     text,                           -- to this endpoint or destination; null: each to its own
    rate        integer,                        -- in a second at most; null: as fast as can be
    canary      integer not null,               -- how many go first and must be handled
    failures_percent_max integer,               -- it pauses above; null: only the canary counts
    who         text    not null,
    why         text    not null,
    selection   blob    not null,               -- JSON: what was asked for, for people
    endpoints   text    not null,               -- JSON array: that gave up dead letters
    last_id     integer not null,               -- the largest id that was found
    total       integer not null,               -- how many were found
    taken       integer not null default 0,     -- how many had their turn
    changed     integer not null default 0,     -- how many of them were changed
    place       integer not null default 0,     -- the last id that had its turn
    note        text,                           -- why it is paused
    driver      text,                           -- who drives it, or did so last
    lease_until integer,                        -- the driver's, alone
    epoch       integer not null default 0,     -- raised by who takes the wheel
    created_at  integer not null,
    updated_at  integer not null
) strict;

-- What an operation is for: found once, when it began. Dead letters, rows or what was sent, by its
-- verb.
create table sagabus_operation_item (
    operation_id integer not null,
    item_id      integer not null,
    primary key (operation_id, item_id)
) strict, without rowid;

-- What sweeps removed for good: written in the transaction that removes it, so that the accounts
-- know from when on they are whole.
create table sagabus_swept (
    what    text    primary key,                -- the table
    removed integer not null,                   -- how many rows, ever
    through integer not null                    -- the youngest of them was of this time
) strict, without rowid;

-- A message that a broker confirmed, as its row was, where a host declares that it is kept.
create table sagabus_sent (
    id           integer primary key,           -- its row's: it is kept once, however often settled
    message_id   blob    not null,
    message_type text    not null,
    destination  text    not null,
    key          text,
    per_key      integer not null,
    headers      blob    not null,
    body         blob    not null,
    expires_at   integer,
    sent_at      integer not null,
    kept_until   integer not null
) strict;
create index sagabus_sent_old on sagabus_sent (kept_until);
