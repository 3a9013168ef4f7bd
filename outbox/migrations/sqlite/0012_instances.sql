-- Instances are rows with a number of their own, found by an index. Without one the whole row is
-- the key of a tree whose inner pages hold whole rows: of 4 KiB, four to a page and ten pages deep
-- at a million. This copies every instance once.
create table sagabus_instance_rows (
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
insert into sagabus_instance_rows (kind, key, version, completed, state, schema_version, data,
    timers, origin, created_at, updated_at)
select kind, key, version, completed, state, schema_version, data, timers, origin, created_at,
    updated_at
from sagabus_instance order by kind, key;
drop trigger sagabus_label_gone;
drop table sagabus_instance;
alter table sagabus_instance_rows rename to sagabus_instance;

-- A tombstone that is swept takes its labels along.
create trigger sagabus_label_gone after delete on sagabus_instance begin
    delete from sagabus_label where kind = old.kind and key = old.key;
end;
