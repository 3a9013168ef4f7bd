-- What operators change, and how they find what they look for.

-- One operator's change, written with the change in one transaction.
create table sagabus_audit (
    id     integer primary key autoincrement,
    at     integer not null,
    who    text    not null,
    action text    not null,
    why    text    not null,
    detail blob    not null                     -- JSON array: an object per row that changed
) strict;

-- Groups are counted from this index alone, and lists of one status begin in it.
create index sagabus_dead_letter_group
    on sagabus_dead_letter (status, endpoint, fingerprint, at);
create index sagabus_dead_letter_status on sagabus_dead_letter (status, id);
create index sagabus_dead_letter_key on sagabus_dead_letter (key) where key is not null;
create index sagabus_dead_letter_message on sagabus_dead_letter (message_id);
