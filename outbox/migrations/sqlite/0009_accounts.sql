-- What sweeps removed for good: written in the transaction that removes it, so that the accounts
-- know from when on they are whole.
create table sagabus_swept (
    what    text    primary key,                -- the table
    removed integer not null,                   -- how many rows, ever
    through integer not null                    -- the youngest of them was of this time
) strict, without rowid;

-- Nobody wrote down what was removed before: accounts begin now, where there is anything.
insert into sagabus_swept (what, removed, through)
select 'history', 0, cast(unixepoch('subsec') * 1000000 as integer)
where exists (select 1 from sagabus_inbox) or exists (select 1 from sagabus_history);

-- The life of one message is looked up, however much history there is. Identities grow with time,
-- so that nearly every entry goes to the end.
create index sagabus_history_message on sagabus_history (message_id);
