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
    heartbeat_at integer not null
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

-- A saga, a machine or a flow. No index on what changes.
create table sagabus_instance (
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
    primary key (kind, key)
) strict, without rowid;

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
