-- Bulk changes that outlive the process that drives them.

create table sagabus_operation (
    id          integer primary key autoincrement,
    state       text    not null check (state in ('running', 'paused', 'done', 'cancelled')),
    verb        text    not null check (verb in ('redrive', 'discard', 'restore')),
    send_to     text,                           -- redriven to this endpoint; null: each to its own
    rate        integer,                        -- in a second at most; null: as fast as can be
    canary      integer not null,               -- how many go first and must be handled
    failures_percent_max integer,               -- it pauses above; null: only the canary counts
    who         text    not null,
    why         text    not null,
    selection   blob    not null,               -- JSON: what was asked for, for people
    endpoints   text    not null,               -- JSON array: that gave up what was found
    last_id     integer not null,               -- the largest dead letter that was found
    total       integer not null,               -- how many were found
    taken       integer not null default 0,     -- how many had their turn
    changed     integer not null default 0,     -- how many of them were changed
    place       integer not null default 0,     -- the last dead letter that had its turn
    note        text,                           -- why it is paused
    driver      text,                           -- who drives it, or did so last
    lease_until integer,                        -- the driver's, alone
    epoch       integer not null default 0,     -- raised by who takes the wheel
    created_at  integer not null,
    updated_at  integer not null
) strict;

-- What an operation is for: found once, when it began.
create table sagabus_operation_item (
    operation_id   integer not null,
    dead_letter_id integer not null,
    primary key (operation_id, dead_letter_id)
) strict, without rowid;

alter table sagabus_audit add column operation_id integer;
