-- What is longer than 2 kB is compressed by LZ4, where the server has it: the default takes ten
-- times as long for a little less. What is stored already stays as it is.
do $$ begin
    alter table sagabus.instance    alter column data set compression lz4;
    alter table sagabus.outbox      alter column body set compression lz4;
    alter table sagabus.history     alter column detail set compression lz4;
    alter table sagabus.dead_letter alter column body set compression lz4;
exception when feature_not_supported then
    raise notice 'this server was built without LZ4; the default compression stays';
end $$;

update sagabus.store set schema_version = 25;
