-- name: clean_up_notifications
-- Deletes one batch of old notifications; returns how far it came and how many they were.
select u.last, u.deleted
from tocsin.clean_up_notifications(:after, :before, :limit) u;

-- name: clean_up_unread
-- Deletes what is unread for too long in one page of notifications; returns the page's last id and how many.
select u.last_id, u.deleted
from tocsin.clean_up_unread(:after, :now, make_interval(days => :days), :limit) u;

-- name: clean_up_digests
-- Deletes one batch of old digests.
select tocsin.clean_up_digests(:before, :limit);

-- name: clean_up_events
-- Deletes those of one page of events that have no notifications; returns how far it came and how many they were.
select u.last, u.last_id, u.deleted
from tocsin.clean_up_events(:after, :after_id, :before, :limit) u;

-- name: clean_up_mail_events
-- Deletes reports of deliveries that were not found; returns how many.
with gone as (
    delete from tocsin.mail_event m
    where m.mail_event_id in (
        select o.mail_event_id
        from tocsin.mail_event o
        where o.received_at < :before
            and not exists (select from tocsin.delivery d where d.delivery_id = o.delivery_id)
        order by o.received_at
        limit :limit
        for update skip locked
    )
    returning 1
)
select count(*)::integer
from gone;

-- name: clean_up_keys
-- Deletes one batch of expired keys and tickets.
select tocsin.clean_up_keys(:now, :limit);

-- name: clean_up_webhooks
-- Deletes a batch of old messages to app webhooks.
select tocsin.clean_up_webhooks(:before, :limit);

-- name: clean_up_badge_pushes
-- Deletes one batch of settled pushes that corrected a badge.
select tocsin.clean_up_badge_pushes(:now, :limit);

-- name: clean_up_joined_messages
-- Deletes one batch of joined messages that are over.
select tocsin.clean_up_joined_messages(:now, :limit);

-- name: disable_stale_devices
-- Disables one batch of devices that were not registered again for too long.
select tocsin.disable_stale_devices(:now, :limit);

-- name: first_maybe_lost
-- The id after which a delivery may be lost.
select tocsin.first_maybe_lost(:now);

-- name: requeue_lost
-- Makes those of one page of deliveries due that have no event queue, due time or lease; returns how far it came.
select tocsin.requeue_lost(:after, :now, :limit);

-- name: count_over
-- How many notifications a clean-up would delete.
select count(*)
from tocsin.notification n
where (n.read_at is not null or n.archived_at is not null or not n.in_inbox)
    and coalesce(n.read_at, n.archived_at, case when not n.in_inbox then n.created_at end) < :before;

-- name: count_unread_for_too_long
-- How many unread notifications a clean-up would delete.
select count(*) filter (where u.is_over)
from tocsin.unread_for_too_long(0, :now, make_interval(days => :days), null) u;

-- name: requeue_lost_jobs!
-- Queues jobs again that a worker fetched without receiving them, since its connection was lost; not those that it runs
-- (:running).
update tocsin_queue.procrastinate_jobs j
set status = 'todo'
where j.worker_id = :worker_id
    and j.status = 'doing'
    and j.id <> all (:running)
    and not j.abort_requested;

-- name: get_secret
-- A secret of this installation.
select s.value
from tocsin.secret s
where s.name = :name;

-- name: load_token
-- The valid token of a key.
select
    p.key,
    p.token,
    p.issued_at,
    p.early
from tocsin.provider_token p
where p.key = :key;

-- name: save_token!
-- Stores a token if the one that it replaces is still valid (null: if there is none).
insert into tocsin.provider_token as p (key, token, issued_at, early)
values (:key, :token, :issued_at, :early)
on conflict (key) do update
set token = excluded.token, issued_at = excluded.issued_at, early = excluded.early
where p.token = :replacing;

-- name: offer_providers!
-- Records that this worker has these providers. A channel is available while some worker recorded a provider of it within
-- :good_for. Providers that this worker doesn't have are left to the others.
with offered as (
    insert into tocsin.provider as p (channel, provider, offered_at)
    select o.channel, o.provider, clock_timestamp()
    from unnest(:channels::text[], :providers::text[]) o (channel, provider)
    -- in the same order in all workers
    order by o.channel, o.provider
    on conflict (channel, provider) do update
    set offered_at = excluded.offered_at
)
update tocsin.channel c
set available = not c.available
where c.task is not null
    and c.available <> (
        c.channel = any (:channels)
        -- as it was before this statement
        or exists (
            select
            from tocsin.provider p
            where p.channel = c.channel
                and p.offered_at > clock_timestamp() - :good_for
        )
    );

-- name: is_offered
-- Whether some worker recorded within :good_for that it has this provider of a channel.
select exists (
    select
    from tocsin.provider p
    where p.channel = :channel
        and p.provider = :provider
        and p.offered_at > clock_timestamp() - :good_for
);

-- name: report_process
-- Writes this process's report in place of its earlier one; renews its leases after a time without one. Returns what it learns.
select r.serving, tocsin.send_holds() as holds
from tocsin.report_process(
    :process_id, :process_kind, :host, :pid, :version, :started_at, :report, :lease, :silent_after
) r;

-- name: forget_process!
-- This process ends in an orderly way.
delete from tocsin.process p
where p.process_id = :process_id;

-- name: processes
-- Processes that reported within the last hour, also those that are silent since.
select
    p.process_id,
    p.kind,
    p.host,
    p.pid,
    p.version,
    p.started_at,
    p.reported_at,
    extract(epoch from clock_timestamp() - p.reported_at)::float8 as silent_for,
    p.report
from tocsin.process p
where p.reported_at > clock_timestamp() - interval '1 hour'
order by p.kind desc, p.started_at, p.process_id
limit 200;
