-- What operators write themselves: another body for a dead letter.

-- Redrives one dead letter with another identity and body, where its body is still what the
-- operator saw: in the place that its stub held, else the last. The dead letter keeps what it was.
create function sagabus.edit_dead_letter_v1(
    p_who text, p_action text, p_why text, p_id bigint, p_message uuid, p_before bytea,
    p_after bytea, p_detail bytea
) returns table (id bigint) language plpgsql
as $$
#variable_conflict use_column
declare
    v_now bigint := sagabus.now_micros();
    v_dead sagabus.dead_letter;
    v_stub bigint;
begin
    update sagabus.dead_letter d set status = 'redriven'
    where d.id = p_id and d.status = 'open' and d.body = p_before returning d.* into v_dead;
    if not found then
        return;
    end if;
    v_stub := case when v_dead.key is not null
        then sagabus.stub_v1(v_dead.endpoint, v_dead.key, v_dead.message_id) end;
    if v_stub is not null then
        update sagabus.outbox o set
            message_id = p_message, message_type = v_dead.message_type, headers = v_dead.headers,
            body = p_after, available_at = v_now, created_at = v_now
        where o.id = v_stub;
    else
        insert into sagabus.outbox (message_id, message_type, destination, key, per_key, headers,
            body, available_at, created_at)
        select p_message, v_dead.message_type, '@' || v_dead.endpoint, v_dead.key,
            v_dead.key is not null and coalesce((
                select e.per_key from sagabus.endpoint e where e.name = v_dead.endpoint
            ), false), v_dead.headers, p_after, v_now, v_now;
    end if;
    insert into sagabus.audit (at, who, action, why, detail)
    values (v_now, p_who, p_action, p_why, convert_to(jsonb_build_array(
        convert_from(p_detail, 'UTF8')::jsonb || jsonb_build_object('id', v_dead.id, 'message_id',
        v_dead.message_id, 'message_type', v_dead.message_type, 'endpoint', v_dead.endpoint)
        )::text, 'UTF8'));
    return query select v_dead.id;
end $$;

update sagabus.store set schema_version = 17;
