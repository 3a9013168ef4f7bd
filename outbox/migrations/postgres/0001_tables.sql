-- The tables of sagabus on PostgreSQL 15 and newer, in the schema `sagabus`.
-- Each migration is one transaction: whoever runs it by hand puts `begin;` and `commit;` around it.
-- Times are microseconds since 1970-01-01 UTC; structured text is JSON kept as bytes, because no
-- value that a message carries may be refused by an encoding check.

create schema sagabus;

create table sagabus.store (
    id             uuid   not null,              -- this database, for ever
    schema_version int    not null,              -- the last migration that is wholly in place
    routes_version bigint not null default 0,    -- grows with every change of a subscription
    created_at     bigint not null
);
create unique index store_is_one on sagabus.store ((true));

create table sagabus.endpoint (
    id      int     generated always as identity primary key,
    name    text    collate "C" not null unique,
    per_key boolean not null default false       -- order is promised per key
);

create table sagabus.subscription (
    message_type text collate "C" not null,
    endpoint_id  int  not null references sagabus.endpoint (id),
    kind         text not null check (kind in ('command', 'event', 'reply')),
    primary key (message_type, endpoint_id)
);

create table sagabus.host (
    id           uuid   primary key,             -- one process, for the time it lives
    name         text   not null,
    definitions  bytea  not null,                -- JSON: routes, machines, versions
    started_at   bigint not null,
    heartbeat_at bigint not null
);

-- A message that the database has taken over at an endpoint.
create table sagabus.inbox (
    message_id  uuid   not null,
    endpoint_id int    not null,
    accepted_at bigint not null,
    primary key (message_id, endpoint_id)
);

-- A message to send: to a transport's address, or to an endpoint of this database (`@orders`).
create table sagabus.outbox (
    id               bigint generated always as identity primary key, -- "older" means smaller
    message_id       uuid    not null,
    message_type     text    collate "C" not null,
    destination      text    collate "C" not null,
    key              text    collate "C",
    per_key          boolean not null default false, -- only the oldest row of (destination, key) moves
    headers          bytea   not null,               -- JSON object of strings
    body             bytea   not null,
    available_at     bigint  not null,               -- due time, back-off and lease in one
    due_at           bigint,                         -- not before; null: at once
    expires_at       bigint,
    epoch            int     not null default 0,     -- grows with every claim
    starts           int     not null default 0,
    failures         int     not null default 0,
    solo_starts      int     not null default 0,
    attempts         bytea,                          -- JSON array
    parked           text,                           -- the reason, while an operator has to decide
    timer_kind       text    collate "C",            -- the instance that armed this timer, its name
    timer_key        text    collate "C",
    timer_name       text    collate "C",
    timer_generation bigint,
    created_at       bigint  not null
);
create index outbox_due on sagabus.outbox (destination, available_at) where parked is null;
create index outbox_order on sagabus.outbox (destination, key, id)
    where per_key and parked is null;
create unique index outbox_timer
    on sagabus.outbox (timer_kind, timer_key, timer_name) where timer_name is not null;

-- A saga, a machine or a flow. No index on what changes, so that updates stay on their page.
create table sagabus.instance (
    kind           text    collate "C" not null,
    key            text    collate "C" not null,
    version        bigint  not null,
    completed      boolean not null default false,   -- over; the row stays as a tombstone
    state          text,
    schema_version int     not null,
    data           bytea   not null,
    timers         bytea   not null,                 -- JSON object: name to generation
    origin         bytea,                            -- JSON: the request that started it
    created_at     bigint  not null,
    updated_at     bigint  not null,
    primary key (kind, key)
) with (fillfactor = 80);

-- What one unit did with one message.
create table sagabus.history (
    id             bigint generated always as identity primary key,
    at             bigint not null,
    endpoint_id    int    not null,
    message_id     uuid   not null,
    message_type   text   collate "C" not null,
    correlation_id uuid   not null,
    kind           text   collate "C",
    key            text   collate "C",
    version        bigint,
    detail         bytea  not null                   -- JSON
);

-- A message that stopped being tried.
create table sagabus.dead_letter (
    id           bigint generated always as identity primary key,
    at           bigint not null,
    endpoint     text   collate "C" not null,
    message_id   uuid   not null,
    message_type text   not null,
    reason       text   not null,
    key          text,
    kind         text,
    instance_key text,
    headers      bytea  not null,
    body         bytea  not null,
    attempts     bytea  not null,                    -- JSON array
    fingerprint  text   collate "C" not null,        -- groups errors that differ in ids and numbers only
    status       text   not null default 'open' check (status in ('open', 'redriven', 'discarded'))
);
create unique index dead_letter_once
    on sagabus.dead_letter (endpoint, message_id) where status = 'open';

insert into sagabus.store (id, schema_version, created_at)
values (gen_random_uuid(), 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint);
