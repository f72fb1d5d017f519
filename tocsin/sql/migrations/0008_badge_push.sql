-- The silent push that corrects a badge: a delivery of no event and no digest.

-- correct_badges: what waits for a device already; erase_traces. In this form, since `event_id is null` tempts the planner
-- into delivery_event, all of whose null keys it would go through for each device.
create index delivery_badge_push on tocsin.delivery (recipient_id, device_id, state)
    where coalesce(event_id, digest_id) is null;
-- clean_up_badge_pushes; of those that ended alone, for the same reason
create index delivery_badge_push_over on tocsin.delivery (settled_at)
    where coalesce(event_id, digest_id) is null and settled_at is not null;

-- One row: what the leader saw when it last asked for them. The next one goes on from there, so that nobody's is lost
-- and nobody gets a second one.
create table tocsin.badge_mark (
    one boolean primary key default true check (one),
    snapshot pg_snapshot not null
);

insert into tocsin.badge_mark (snapshot) values (pg_current_snapshot());
