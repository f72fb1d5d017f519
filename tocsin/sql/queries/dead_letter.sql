-- name: dead_letters
-- Failed deliveries, newest first, from before a place in the list; with what their last attempt was told.
with chosen as (
    select d.delivery_id, d.failed_at
    from tocsin.delivery d
    where d.failed_at is not null
        and coalesce(d.event_id, d.digest_id) is not null
        and (d.failed_at, d.delivery_id) < (:at::timestamptz, :id::bigint)
        and d.failed_at >= :since
        and (:channel::text is null or d.channel = :channel)
        and (:reason::text is null or d.reason = :reason)
    order by d.failed_at desc, d.delivery_id desc
    limit :limit
)
select
    d.delivery_id,
    d.notification_id,
    d.event_id,
    d.recipient_id,
    d.channel,
    n.event_type,
    e.title,
    d.reason,
    t.reason as last_reason,
    d.attempts,
    d.address,
    d.created_at,
    d.failed_at,
    case
        when e.cancelled_at is not null then 'cancelled'
        when coalesce(e.expires_at, d.expires_at) <= clock_timestamp() then 'expired'
        when s.key is not null then 'suppressed'
        when d.channel = 'push' and v.recipient_id is distinct from d.recipient_id then 'device_moved'
        when v.disabled_at is not null then 'no_device'
    end as held
from chosen
join tocsin.delivery d using (delivery_id)
left join tocsin.notification n using (notification_id)
left join tocsin.event e on e.event_id = d.event_id
left join tocsin.recipient r on r.recipient_id = d.recipient_id
left join tocsin.suppression s on s.key = coalesce(r.address_key, tocsin.address_key(n.address)) and d.channel = 'email'
left join tocsin.device v on v.device_id = d.device_id
left join lateral (
    select a.reason
    from tocsin.attempt a
    where a.delivery_id = d.delivery_id
        and a.outcome <> 'replayed'
    order by a.attempt desc
    limit 1
) t on true
order by chosen.failed_at desc, d.delivery_id desc;

-- name: dead_letter_ids
-- The same, as a batch to replay.
select d.delivery_id, d.failed_at
from tocsin.delivery d
where d.failed_at is not null
    and coalesce(d.event_id, d.digest_id) is not null
    and (d.failed_at, d.delivery_id) < (:at::timestamptz, :id::bigint)
    and d.failed_at >= :since
    and (:channel::text is null or d.channel = :channel)
    and (:reason::text is null or d.reason = :reason)
order by d.failed_at desc, d.delivery_id desc
limit :limit;

-- name: dead_letter_reasons
-- How many failed since a time, by channel and reason; of the newest :most.
select
    f.channel,
    f.reason,
    count(*)::integer as n,
    min(f.failed_at) as first_at,
    max(f.failed_at) as last_at
from (
    select d.channel, coalesce(d.reason, '') as reason, d.failed_at
    from tocsin.delivery d
    where d.failed_at is not null
        and coalesce(d.event_id, d.digest_id) is not null
        and d.failed_at >= :since
    order by d.failed_at desc, d.delivery_id desc
    limit :most
) f
group by f.channel, f.reason
order by count(*) desc, f.channel, f.reason;

-- name: replay
-- Tries failed deliveries anew; how many, and how many stay as they are, by cause.
select r.replayed, r.kept
from tocsin.replay(:delivery_ids::bigint[], :lift) r;
