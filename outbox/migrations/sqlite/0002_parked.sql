-- What is parked is found by an index of its own.
create index sagabus_outbox_parked on sagabus_outbox (destination, id) where parked is not null;
