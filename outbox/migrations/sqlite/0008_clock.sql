-- How far each host's clock is from the database's, in microseconds; null: it never said.
alter table sagabus_host add column behind integer;
