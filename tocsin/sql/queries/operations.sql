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
