-- name: list_event_types
-- The event types in the order of the catalogue.
select
    c.category,
    c.label as category_label,
    t.event_type,
    t.label,
    t.default_channels,
    t.mandatory_channels,
    (array['low', 'normal', 'high'])[t.priority + 1] as priority,
    t.allows_digest as digest,
    tocsin.throttle_text(t.throttle_most, t.throttle_within) as throttle
from tocsin.event_type t
join tocsin.category c using (category)
where t.retired_at is null
order by c.position, t.position, t.event_type;

-- name: get_event_type
-- One event type, retired or not.
select
    c.category,
    c.label as category_label,
    t.event_type,
    t.label,
    t.default_channels,
    t.mandatory_channels,
    (array['low', 'normal', 'high'])[t.priority + 1] as priority,
    t.allows_digest as digest,
    tocsin.throttle_text(t.throttle_most, t.throttle_within) as throttle
from tocsin.event_type t
join tocsin.category c using (category)
where t.event_type = :event_type;

-- name: nearest_event_types
-- Null where this event type exists, retired or not; else the nearest known ones.
select tocsin.nearest_event_types(left(:event_type, 100))
where not exists (
    select
    from tocsin.event_type t
    where t.event_type = :event_type
);

-- name: categories_without
-- Null where this category exists; else all categories.
select string_agg(c.category, ', ' order by c.position)
from tocsin.category c
having bool_and(c.category <> :category);

-- name: create_event
-- Creates an event, for the HTTP API.
select
    e.event_id,
    e.notifications,
    e.replayed
from tocsin.create_event(
    :caller,
    :event_type,
    :recipients::text[],
    :topic,
    :email,
    :title,
    :body,
    :action_url,
    :metadata::jsonb,
    :initiator,
    :idempotency_key,
    :body_html,
    :send_at::timestamptz,
    :subscribe_initiator,
    :subject,
    :replaces,
    :content::jsonb,
    :actions::jsonb,
    :unknown
) e;

-- name: set_traceparent
-- Sets the app's span for the events that this transaction creates.
select set_config('tocsin.traceparent', :traceparent, true);

-- name: traced_events
-- Those of these events that are part of a trace, with the first delivery of each.
select
    e.event_id,
    e.event_type,
    e.traceparent,
    e.created_at,
    coalesce(e.fanned_out_at, e.created_at) as fanned_out_at,
    f.first_delivery_id
from tocsin.event e
cross join lateral (
    select min(d.delivery_id) as first_delivery_id
    from tocsin.channel c
    cross join lateral (
        select d.delivery_id
        from tocsin.delivery d
        where d.event_id = e.event_id
            and d.channel = c.channel
        order by d.delivery_id
        limit 1
    ) d
) f
where e.event_id = any (:event_ids)
    and e.traceparent is not null;

-- name: create_missing_recipients
-- Creates the unknown ones of [{"at", "id", "email", "name", "locale", "timezone", "avatar_url"}]; returns how many.
select tocsin.create_missing_recipients(:people::jsonb);

-- name: decisions
-- What was decided for each person of an event, or for the address of a person without an account.
select
    coalesce(n.recipient_id, e.email) as recipient_id,
    n.decisions
from tocsin.notification n
join tocsin.event e using (event_id)
where n.event_id = :event_id
order by n.recipient_id;

-- name: preview_slice
-- Writes the first slice of an event that is fanned out in slices; returns for how many people it is. Null: it is fanned out.
select f.total
from tocsin.running_fan_out f
cross join lateral (select tocsin.advance_fan_out(f, 500) offset 0) w
where f.event_id = :event_id;

-- name: initiator_skipped
-- Whether an event's initiator was among its recipients and was left out.
select e.initiator_skipped
from tocsin.event e
where e.event_id = :event_id;

-- name: get_event
-- One event with its counts.
select
    e.event_id as id,
    e.event_type,
    e.title,
    e.topic,
    e.subject,
    e.initiator,
    e.initiator_skipped,
    e.unknown_skipped,
    e.caller,
    e.created_at,
    e.send_at,
    e.fanned_out_at,
    e.cancelled_at,
    n.notifications,
    case
        when f.event_id is not null then f.fanned_out
        else n.notifications
    end as fanned_out,
    case
        when f.event_id is not null then greatest(f.total, f.fanned_out)
        when e.fanned_out_at is null and e.cancelled_at is null then cardinality(e.recipients)
        else n.notifications
    end as total,
    coalesce(
        (
            select jsonb_object_agg(c.channel, c.states)
            from (
                select
                    s.channel,
                    jsonb_object_agg(s.state, s.n) as states
                from (
                    select
                        d.channel,
                        d.state,
                        count(*) as n
                    from tocsin.delivery d
                    where d.event_id = e.event_id
                    group by d.channel, d.state
                ) s
                group by s.channel
            ) c
        ),
        '{}'
    ) as deliveries,
    coalesce(
        (
            select jsonb_object_agg(c.kind, c.n)
            from (
                select
                    m.kind,
                    count(distinct d.delivery_id) as n
                from tocsin.delivery d
                join tocsin.mail_event m on m.delivery_id in (d.delivery_id, d.burst_id)
                where d.event_id = e.event_id
                    and d.channel = 'email'
                group by m.kind
            ) c
        ),
        '{}'
    ) as mail_events
from tocsin.event e
cross join lateral (select tocsin.count_notified(e.event_id) as notifications offset 0) n
left join tocsin.running_fan_out f using (event_id)
where e.event_id = :event_id;

-- name: fan_out_progress
-- How far the fan-out of an event is, without reading what it wrote; null for what is not known.
select
    f.fanned_out,
    case when f.event_id is not null then greatest(f.total, f.fanned_out) end as total,
    e.send_at,
    e.fanned_out_at,
    e.cancelled_at
from tocsin.event e
left join tocsin.running_fan_out f using (event_id)
where e.event_id = :event_id;

-- name: count_notified
-- How many people were notified of an event.
select tocsin.count_notified(:event_id);

-- name: list_older_events
-- Events, newest first, from a position in the list on; with a recipient, those of which this person was notified.
select
    e.event_id as id,
    e.event_type,
    e.title,
    e.initiator,
    e.caller,
    e.created_at,
    e.send_at,
    e.cancelled_at,
    tocsin.count_notified(e.event_id) as notifications,
    (
        select n.notification_id
        from tocsin.notification n
        where n.event_id = e.event_id
            and n.recipient_id = :recipient_id::text
    ) as notification_id
from tocsin.event e
where (e.created_at, e.event_id) < (coalesce(:at, 'infinity'::timestamptz), coalesce(:id, 9223372036854775807))
    and (:event_type::text is null or e.event_type = :event_type)
    and (:since::timestamptz is null or e.created_at >= :since)
    and (
        :recipient_id::text is null
        or e.event_id in (
            select n.event_id
            from tocsin.notification n
            where n.recipient_id = :recipient_id
        )
        -- and those that this person caused and was left out of
        or e.initiator = :recipient_id and e.initiator_skipped
    )
order by e.created_at desc, e.event_id desc
limit :limit;

-- name: list_newer_events
-- The events just after a position in the list, oldest first.
select
    e.event_id as id,
    e.event_type,
    e.title,
    e.initiator,
    e.caller,
    e.created_at,
    e.send_at,
    e.cancelled_at,
    tocsin.count_notified(e.event_id) as notifications,
    (
        select n.notification_id
        from tocsin.notification n
        where n.event_id = e.event_id
            and n.recipient_id = :recipient_id::text
    ) as notification_id
from tocsin.event e
where (e.created_at, e.event_id) > (:at, :id)
    and (:event_type::text is null or e.event_type = :event_type)
    and (:since::timestamptz is null or e.created_at >= :since)
    and (
        :recipient_id::text is null
        or e.event_id in (
            select n.event_id
            from tocsin.notification n
            where n.recipient_id = :recipient_id
        )
        -- and those that this person caused and was left out of
        or e.initiator = :recipient_id and e.initiator_skipped
    )
order by e.created_at, e.event_id
limit :limit;

-- name: cancel_event
-- Cancels an event; null where there is none, else how many deliveries were stopped.
select tocsin.cancel(e.event_id)
from tocsin.event e
where e.event_id = :event_id;

-- name: withdraw
-- Cancels the events of a subject; returns how many.
select tocsin.withdraw(:subject, :event_type);
