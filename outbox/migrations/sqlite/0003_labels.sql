-- Second names of instances, such as the number of a payment: each of one running instance.
create table sagabus_label (
    kind  text not null,
    name  text not null,
    value text not null,
    key   text not null,                        -- of the instance that has it
    primary key (kind, name, value)
) strict, without rowid;
create index sagabus_label_owner on sagabus_label (kind, key);

-- A tombstone that is swept takes its labels along.
create trigger sagabus_label_gone after delete on sagabus_instance begin
    delete from sagabus_label where kind = old.kind and key = old.key;
end;
