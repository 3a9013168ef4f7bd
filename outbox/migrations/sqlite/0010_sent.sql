-- What brokers took, where a host declares that it is kept, so that a window of it can be sent again.

-- A message that a broker confirmed, as its row was.
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

-- What a host made of what it was asked to do, written into the entry of who asked.
alter table sagabus_audit add column outcome blob;
