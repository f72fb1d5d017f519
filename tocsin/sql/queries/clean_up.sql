-- name: clean_up_notifications
-- One batch of notifications that are over.
select tocsin.clean_up_notifications(:before, :limit);

-- name: clean_up_digests
-- One batch of digests that are over.
select tocsin.clean_up_digests(:before, :limit);

-- name: clean_up_events
-- One batch of events that nobody has any more.
select tocsin.clean_up_events(:before, :limit);

-- name: clean_up_keys
-- One batch of keys and tickets that are over.
select tocsin.clean_up_keys(:now, :limit);

-- name: clean_up_badge_pushes
-- One batch of pushes that corrected a badge, and are over.
select tocsin.clean_up_badge_pushes(:now, :limit);

-- name: disable_stale_devices
-- One batch of devices that were not registered anew for too long.
select tocsin.disable_stale_devices(:now, :limit);

-- name: requeue_lost
-- One batch of deliveries that nothing stands for.
select tocsin.requeue_lost(:now, :limit);

-- name: count_over
-- How many notifications a clean-up would remove.
select count(*)
from tocsin.notification n
where (n.read_at is not null or n.archived_at is not null or not n.in_inbox)
    and coalesce(n.read_at, n.archived_at, case when not n.in_inbox then n.created_at end) < :before;
