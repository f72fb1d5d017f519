-- name: take_slots
-- Takes slots of a channel that has a rate; returns in how many seconds the first one is.
select tocsin.take_slots(:channel, :count, :gap);

-- name: hold_sending!
-- Stores a pause that a provider asked for, for all workers.
select tocsin.hold_sending(:key, :reason, :seconds);
