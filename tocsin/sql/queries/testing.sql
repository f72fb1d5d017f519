-- name: outbox
-- Events after $1 with their notifications and deliveries, as the text of one JSON object.
select json_build_object(
    'events', (
        select json_agg(json_build_object(
            'id', e.event_id,
            'event_type', e.event_type,
            'title', e.title,
            'body', e.body,
            'body_html', e.body_html,
            'action_url', e.action_url,
            'metadata', e.metadata,
            'initiator', e.initiator,
            'topic', e.topic,
            'email', e.email,
            'recipients', coalesce(
                e.recipients,
                array(
                    select n.recipient_id
                    from tocsin.notification n
                    where n.event_id = e.event_id
                        and n.recipient_id is not null
                    order by n.notification_id
                )
            ),
            'send_at', e.send_at,
            'created_at', e.created_at,
            'scheduled', e.fanned_out_at is null,
            'cancelled', e.cancelled_at is not null
        ) order by e.event_id)
        from tocsin.event e
        where e.event_id > a.after
    ),
    'notifications', (
        select json_agg(json_build_object(
            'id', n.notification_id,
            'event_id', n.event_id,
            'recipient', n.recipient_id,
            'address', n.address,
            'because', n.because,
            'read', n.read_at is not null,
            'decisions', (
                select json_object_agg(d.key, d.value order by c.position)
                from jsonb_each(n.decisions) d
                left join tocsin.channel c on c.channel = d.key
            )
        ) order by n.notification_id)
        from tocsin.notification n
        where n.event_id > a.after
    ),
    'deliveries', (
        select json_agg(json_build_object(
            'id', d.delivery_id,
            'notification_id', d.notification_id,
            'channel', d.channel,
            'address', case
                when d.device_id is not null then v.token
                when d.channel = 'email' then coalesce(r.email, n.address)
            end,
            'provider', v.provider,
            'state', d.state,
            'reason', d.reason,
            'due_at', d.due_at
        ) order by d.delivery_id)
        from tocsin.delivery d
        join tocsin.notification n using (notification_id)
        left join tocsin.recipient r on r.recipient_id = n.recipient_id
        left join tocsin.device v using (device_id)
        where d.event_id > a.after
    )
)::text
from (select $1::bigint as after) a;

-- name: last_event
-- The newest event that this session sees; 0 where there is none.
select coalesce(max(e.event_id), 0)
from tocsin.event e;

-- name: last_event_before_transaction
-- The newest event from before this transaction; 0 where there is none.
select coalesce(max(e.event_id), 0)
from tocsin.event e
where e.created_at < now();

-- name: make_channels_available
-- Lets notify() decide as where a worker has a provider for each of these channels and for no other one.
update tocsin.channel c
set available = c.channel = any (:channels::text[])
where c.task is not null;
