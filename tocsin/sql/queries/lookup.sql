-- name: find_person
-- What is known of a person that decides what reaches them.
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
-- Who has an address, however it is written.
select array(
    select r.recipient_id
    from tocsin.recipient r
    where r.address = tocsin.compared_address(:address)
    order by r.created_at, r.recipient_id
    limit 5
);

-- name: notifications_of_person
-- What a person was told last, in their inbox or not. By xid, since that is what its index is sorted by.
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
-- Whom an event was told to, the first ones by their ids.
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
-- Whether there is one.
select exists (
    select
    from tocsin.notification n
    where n.notification_id = :notification_id
);
