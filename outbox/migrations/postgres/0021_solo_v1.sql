-- A message that ran alone and failed with a word has not killed its host: its starts alone are
-- forgotten. Counted on, two failures made a message that somebody else's death had made suspect a
-- dead letter, as one that kills its host.
--
-- One expression of the commit call changes; the rest of it stays as it is.
do $$
declare
    v_old constant text := 'o.solo_starts + case when s.does = 4 then 1 else 0 end';
    v_new constant text := 'case when s.does = 4 then o.solo_starts + 1 '
        || 'when s.does = 2 and s.failures is not null then 0 else o.solo_starts end';
    v_text text;
begin
    select pg_get_functiondef(p.oid) into strict v_text
    from pg_proc p where p.pronamespace = 'sagabus'::regnamespace and p.proname = 'commit_v1';
    if strpos(v_text, v_old) = 0 then
        raise exception 'commit_v1 is not as migration 2 left it';
    end if;
    execute replace(v_text, v_old, v_new);
end $$;

update sagabus.store set schema_version = 21;
