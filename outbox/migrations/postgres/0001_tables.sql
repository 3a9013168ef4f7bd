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
    heartbeat_at bigint not null,
    stopped_at   bigint,                         -- null: it runs, or was killed
    behind       bigint                          -- its clock, microseconds; null: it never said
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
-- What is parked: commands that nobody took are under `?` and their type.
create index outbox_parked on sagabus.outbox (destination, id) where parked is not null;

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

-- Second names of instances, such as the number of a payment: each of one running instance.
create table sagabus.label (
    kind  text collate "C" not null,
    name  text collate "C" not null,
    value text collate "C" not null,
    key   text collate "C" not null,                 -- of the instance that has it
    primary key (kind, name, value)
);
create index label_owner on sagabus.label (kind, key);

-- A tombstone that is swept takes its labels along.
create function sagabus.label_gone_v1() returns trigger language plpgsql
set enable_seqscan = off set jit = off
as $$
begin
    delete from sagabus.label l using gone g where l.kind = g.kind and l.key = g.key;
    return null;
end
$$;
create trigger label_gone after delete on sagabus.instance
    referencing old table as gone
    for each statement execute function sagabus.label_gone_v1();

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
-- The life of one message is looked up, however much history there is. Identities grow with time,
-- so that nearly every entry goes to the end.
create index history_message on sagabus.history (message_id);

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
-- Groups are counted from this index alone, and lists of one status begin in it.
create index dead_letter_group
    on sagabus.dead_letter (status, endpoint, fingerprint, at, id);
create index dead_letter_status on sagabus.dead_letter (status, id);
create index dead_letter_key on sagabus.dead_letter (key) where key is not null;
create index dead_letter_message on sagabus.dead_letter (message_id);

-- One operator's change, written with the change in one transaction.
create table sagabus.audit (
    id           bigint generated always as identity primary key,
    at           bigint not null,
    who          text   not null,
    action       text   not null,
    why          text   not null,
    detail       bytea  not null,               -- JSON array: an object per row that changed
    operation_id bigint,                        -- of which it is a step
    outcome      bytea                          -- JSON: what a host made of what it was asked to do
);

create table sagabus.operation (
    id          bigint generated always as identity primary key,
    state       text   not null check (state in ('running', 'paused', 'done', 'cancelled')),
    verb        text   not null check (verb in ('redrive', 'discard', 'restore', 'park_rows',
        'release_rows', 'readdress_rows', 'expedite_rows', 'discard_rows', 'purge_rows',
        'republish_sent')),
    send_to     text   collate "C",              -- to this endpoint or destination; null: each to its own
    rate        bigint,                          -- in a second at most; null: as fast as can be
    canary      bigint not null,                 -- how many go first and must be handled
    failures_percent_max bigint,                 -- it pauses above; null: only the canary counts
    who         text   not null,
    why         text   not null,
    selection   bytea  not null,                 -- JSON: what was asked for, for people
    endpoints   text[] collate "C" not null,     -- that gave up what was found, of dead letters
    last_id     bigint not null,                 -- the largest id that was found
    total       bigint not null,                 -- how many were found
    taken       bigint not null default 0,       -- how many had their turn
    changed     bigint not null default 0,       -- how many of them were changed
    place       bigint not null default 0,       -- the last id that had its turn
    note        text,                            -- why it is paused
    driver      text,                            -- who drives it, or did so last
    lease_until bigint,                          -- the driver's, alone
    epoch       int    not null default 0,       -- raised by who takes the wheel
    created_at  bigint not null,
    updated_at  bigint not null
);

-- What an operation is for: found once, when it began. Dead letters, rows or what was sent, by its
-- verb.
create table sagabus.operation_item (
    operation_id bigint not null,
    item_id      bigint not null,
    primary key (operation_id, item_id)
);

-- What sweeps removed for good: written in the transaction that removes it, so that the accounts
-- know from when on they are whole.
create table sagabus.swept (
    what    text   primary key,                  -- the table
    removed bigint not null,                     -- how many rows, ever
    through bigint not null                      -- the youngest of them was of this time
);

-- A message that a broker confirmed, as its row was, where a host declares that it is kept.
create table sagabus.sent (
    id           bigint  primary key,                -- its row's: it is kept once, however often settled
    message_id   uuid    not null,
    message_type text    collate "C" not null,
    destination  text    collate "C" not null,
    key          text    collate "C",
    per_key      boolean not null,
    headers      bytea   not null,
    body         bytea   not null,
    expires_at   bigint,
    sent_at      bigint  not null,
    kept_until   bigint  not null
);
create index sent_old on sagabus.sent (kept_until);

-- What is longer than 2 kB is compressed by LZ4, where the server has it: the default takes ten
-- times as long for a little less.
do $$ begin
    alter table sagabus.instance    alter column data set compression lz4;
    alter table sagabus.outbox      alter column body set compression lz4;
    alter table sagabus.history     alter column detail set compression lz4;
    alter table sagabus.dead_letter alter column body set compression lz4;
exception when feature_not_supported then
    raise notice 'this server was built without LZ4; the default compression stays';
end $$;

insert into sagabus.store (id, schema_version, created_at)
values (gen_random_uuid(), 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint);
