-- name: find_person
-- The facts about a person that decide what reaches them.
select
    r.recipient_id as id,
    r.email,
    r.locale,
    r.timezone,
    r.created_at,
    tocsin.unread_count(r.recipient_id) as unread,
    s.reason as suppressed,
    s.created_at as suppressed_at,
    g.frequency as digest,
    q.recipient_id is not null as quiet_hours,
    coalesce(v.devices, '[]') as devices
from tocsin.recipient r
left join tocsin.suppression s on s.key = r.address_key
left join tocsin.digest_preference g on g.recipient_id = r.recipient_id and g.frequency <> 'off'
left join tocsin.quiet_hours q on q.recipient_id = r.recipient_id
cross join lateral (
    select jsonb_agg(
        jsonb_build_object(
            'platform', d.platform,
            'provider', d.provider,
            'token', d.token,
            'registered_at', d.registered_at,
            'disabled_at', d.disabled_at,
            'disabled_reason', d.disabled_reason
        )
        order by d.registered_at desc
    ) as devices
    from tocsin.device d
    where d.recipient_id = r.recipient_id
) v
where r.recipient_id = :recipient_id;

-- name: recipients_with_address
-- The people with an address, however it is written.
select array(
    select r.recipient_id
    from tocsin.recipient r
    where r.address = tocsin.compared_address(:address)
    order by r.created_at, r.recipient_id
    limit 5
);

-- name: notifications_of_person
-- The last notifications of a person, in the inbox or not. By xid, in the order of its index.
select
    n.notification_id as id,
    n.event_id,
    n.event_type,
    e.title,
    n.created_at,
    n.in_inbox,
    n.read_at,
    n.recipient_id
from (
    select o.notification_id
    from tocsin.notification o
    where o.recipient_id = :recipient_id
    order by o.xid desc
    limit :limit
) o
join tocsin.notification n using (notification_id)
join tocsin.event e using (event_id)
order by n.notification_id desc;

-- name: notifications_of_event
-- The first notifications of an event, by the ids of the people.
select
    n.notification_id as id,
    n.event_id,
    n.event_type,
    e.title,
    n.created_at,
    n.in_inbox,
    n.read_at,
    n.recipient_id
from (
    select o.notification_id
    from tocsin.notification o
    where o.event_id = :event_id
    order by o.recipient_id
    limit :limit
) o
join tocsin.notification n using (notification_id)
join tocsin.event e using (event_id)
order by n.recipient_id;

-- name: notification_exists
-- Whether a notification exists.
select exists (
    select
    from tocsin.notification n
    where n.notification_id = :notification_id
);

-- name: count_minutes
-- Counts the minutes that are over; returns up to when minutes are counted, or null while another process does it.
select tocsin.count_minutes(:now, :most);

-- name: counted_minutes
-- The counts since a time, in steps of so many seconds; of what waits, the highest count of a step. One row for each step,
-- channel and state, with arrays of equal length: a day has thousands of reasons and classes.
select
    s.at,
    s.channel,
    s.state::text as state,
    array_agg(s.reason) as reasons,
    array_agg(s.took) as took,
    array_agg(s.n) as n
from (
    select
        date_bin(:step, m.minute, :since) as at,
        m.channel,
        m.state,
        m.reason,
        m.took,
        case when m.state in ('queued', 'sending', 'deferred') then max(m.n) else sum(m.n) end::integer as n
    from tocsin.delivery_minute m
    where m.minute >= :since
    group by 1, m.channel, m.state, m.reason, m.took
) s
group by s.at, s.channel, s.state;

-- name: settled_lately
-- What reached a final state since the last minute that was counted, and within the last minute.
select
    e.minute as at,
    e.channel,
    e.state::text as state,
    e.reason,
    e.took,
    e.n,
    e.recent,
    e.minute >= k.upto as uncounted
from (select m.upto from tocsin.delivery_minute_progress m) k
cross join lateral tocsin.settled_between(
    -- after a long absence, only the last minutes while the rest is being counted
    least(greatest(date_trunc('minute', k.upto), :now - interval '5 minutes'), :now - interval '1 minute'),
    :now,
    :now - interval '1 minute'
) e;

-- name: unfinished
-- What is not in a final state, by channel, state and reason, counted up to :most on a channel.
select
    u.channel,
    u.state::text as state,
    u.reason,
    u.n,
    u.oldest_at
from tocsin.unfinished(:most) u;

-- name: channels
-- Each channel that sends: whether some worker has a provider of it, and by how many seconds its oldest due delivery is late.
select
    c.channel,
    c.available,
    greatest(0, extract(epoch from clock_timestamp() - least(d.due_at, l.fanned_out_at)))::float8 as late
from tocsin.channel c
cross join lateral (
    select min(d.due_at) as due_at
    from tocsin.delivery d
    where d.channel = c.channel
        and d.due_at is not null
) d
cross join lateral (
    select min(e.fanned_out_at) as fanned_out_at
    from (
        select k.event_id
        from tocsin.event_queue k
        where k.channel = c.channel
        order by k.xid
        limit 100
    ) k
    join tocsin.event e using (event_id)
) l
where c.task is not null
order by c.position;

-- name: running_fan_outs
-- Fan-outs that the leader writes in slices, the oldest event first.
select
    f.event_id,
    e.event_type,
    e.title,
    f.fanned_out,
    greatest(f.total, f.fanned_out) as total,
    f.as_of as since
from tocsin.running_fan_out f
join tocsin.event e using (event_id)
order by f.event_id
limit 20;

-- name: dead_letters
-- Failed deliveries, newest first, from a position in the list on; with the reason of their last attempt.
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
        when d.channel in ('push', 'web_push') and v.recipient_id is distinct from d.recipient_id then 'device_moved'
        when v.disabled_at is not null then case d.channel when 'push' then 'no_device' else 'no_subscription' end
        when d.target_id is not null and (g.target_id is null or g.disabled_at is not null) then 'no_target'
    end as held
from chosen
join tocsin.delivery d using (delivery_id)
left join tocsin.notification n using (notification_id)
left join tocsin.event e on e.event_id = d.event_id
left join tocsin.recipient r on r.recipient_id = d.recipient_id
left join tocsin.suppression s on s.key = coalesce(r.address_key, tocsin.address_key(n.address)) and d.channel = 'email'
left join tocsin.device v on v.device_id = d.device_id
left join tocsin.target g on g.target_id = d.target_id
left join lateral (
    select a.reason
    from tocsin.attempt a
    where a.delivery_id = d.delivery_id
        and a.outcome <> 'replayed'
    order by a.attempt desc
    limit 1
) t on true
order by chosen.failed_at desc, d.delivery_id desc;

-- name: dead_letter_reasons
-- How many deliveries failed since a time, by channel and reason; of the newest :most.
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
-- Replays failed deliveries; returns how many, and how many stay as they are, by cause.
select r.replayed, r.kept
from tocsin.replay(:delivery_ids::bigint[], :lift) r;

-- name: throttled_apps
-- Apps and event types of which many deliveries wait because a limit of messages to one person is reached. Of the largest
-- joined messages that wait, some deliveries are read.
select
    w.caller,
    max(k.name) as key_name,
    w.event_type,
    w.channel,
    sum(w.deliveries)::integer as deliveries,
    count(distinct w.recipient_id)::integer as people,
    min(w.created_at) as since,
    min(w.due_at) as due_at
from (
    select
        j.recipient_id,
        j.channel,
        j.deliveries,
        j.created_at,
        j.due_at,
        mode() within group (order by e.caller) as caller,
        mode() within group (order by e.event_type) as event_type
    from (
        select j.recipient_id, j.channel, j.burst_id, j.deliveries, j.created_at, j.due_at
        from tocsin.joined_message j
        where j.due_at > clock_timestamp()
            and j.deliveries >= :at_least
        order by j.deliveries desc
        limit 20
    ) j
    cross join lateral (
        select d.event_id
        from tocsin.delivery d
        where d.burst_id = j.burst_id
            and d.reason = 'throttled'
        limit 100
    ) d
    join tocsin.event e using (event_id)
    group by j.recipient_id, j.channel, j.burst_id, j.deliveries, j.created_at, j.due_at
) w
left join tocsin.api_key k on 'key:' || k.api_key_id = w.caller
group by w.caller, w.event_type, w.channel
order by deliveries desc
limit 5;
