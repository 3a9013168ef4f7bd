-- One role of the server for each role of the tools, and one for the services, each with what it
-- needs and no more.
-- Run it as the owner of the schema, and again after each migration. Give a person's login one of
-- them: grant sagabus_operator to ada;

do $$
declare
    v_name text;
begin
    foreach v_name in array array[
        'sagabus_reader', 'sagabus_body_reader', 'sagabus_operator', 'sagabus_admin', 'sagabus_host'
    ] loop
        if not exists (select 1 from pg_roles r where r.rolname = v_name) then
            execute format('create role %I nologin', v_name);
        end if;
    end loop;
end $$;

grant usage on schema sagabus to sagabus_reader;

-- A reader sees what happens and not what it is about: no body, no instance's data, no audit detail.
grant select on sagabus.store, sagabus.endpoint, sagabus.subscription, sagabus.host, sagabus.inbox,
    sagabus.history, sagabus.label, sagabus.operation, sagabus.operation_item, sagabus.swept
    to sagabus_reader;
grant select (id, at, endpoint, message_id, message_type, reason, key, kind, instance_key, headers,
    attempts, fingerprint, status) on sagabus.dead_letter to sagabus_reader;
grant select (id, message_id, message_type, destination, key, per_key, headers, available_at, due_at,
    expires_at, epoch, starts, failures, solo_starts, attempts, parked, timer_kind, timer_key,
    timer_name, timer_generation, created_at) on sagabus.outbox to sagabus_reader;
grant select (kind, key, version, completed, state, schema_version, timers, created_at, updated_at)
    on sagabus.instance to sagabus_reader;
grant select (id, message_id, message_type, destination, key, per_key, expires_at, sent_at, kept_until)
    on sagabus.sent to sagabus_reader;
grant select (id, at, who, action, why, operation_id) on sagabus.audit to sagabus_reader;

-- A body reader sees that, too.
grant sagabus_reader to sagabus_body_reader;
grant select on sagabus.dead_letter, sagabus.outbox, sagabus.sent, sagabus.instance, sagabus.audit
    to sagabus_body_reader;

-- An operator retries, discards, restores and releases. What it writes into the outbox it could
-- make up, so it is a trusted role; data of instances it cannot touch.
grant sagabus_body_reader to sagabus_operator;
grant update (status) on sagabus.dead_letter to sagabus_operator;
grant insert, update, delete on sagabus.outbox to sagabus_operator;
grant delete on sagabus.sent to sagabus_operator;
grant insert, update on sagabus.operation to sagabus_operator;
grant insert on sagabus.operation_item, sagabus.audit to sagabus_operator;
-- Pauses, schedules and timers are rows of the table of instances, which only these touch for it.
grant execute on function
    sagabus.hold_v1(text, text, text, text, text, boolean),
    sagabus.change_schedule_v1(text, text, text, text, text[], text[]),
    sagabus.cancel_timers_v1(text, text, text, bigint[]),
    sagabus.rehearse_v1(text, text, text, text, bytea, bytea)
to sagabus_operator;

-- An admin writes data of instances and removes endpoints. Nobody but the owner writes over the
-- audit, or changes the schema.
grant sagabus_operator to sagabus_admin;
grant execute on function sagabus.transition_v1(text, text, text, text, bytea, bytea),
    sagabus.note_transition_v1(text, text, text, bigint, bytea, bigint)
    to sagabus_admin;
grant update on sagabus.instance, sagabus.store to sagabus_admin;
grant update, delete on sagabus.endpoint, sagabus.subscription to sagabus_admin;

-- A service writes and reads every table that its hosts work with, and cannot change the schema: it
-- is migrated by the owner, before the service starts.
grant usage on schema sagabus to sagabus_host;
grant select, insert, update, delete on all tables in schema sagabus to sagabus_host;
revoke update, delete on sagabus.audit from sagabus_host;
