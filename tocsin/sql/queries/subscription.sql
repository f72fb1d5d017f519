-- name: check_topic
-- Refuses what can't be one.
select tocsin.check_topic(:topic);

-- name: create_missing_recipient!
-- Somebody's first write creates them.
insert into tocsin.recipient (recipient_id)
values (:recipient_id)
on conflict do nothing;

-- name: subscribe
-- Follows a topic, or changes how closely; true where that changed something.
select tocsin.subscribe(:recipient_id, :topic, :level);

-- name: unsubscribe
-- Follows a topic no more; false where it was neither followed nor muted.
select tocsin.unsubscribe(:recipient_id, :topic);

-- name: unmute
-- Takes a muting back; false where it was not muted.
select tocsin.unmute(:recipient_id, :topic);

-- name: get_subscription
-- How a person follows one topic.
select
    s.subscription_id as id,
    s.topic,
    s.level,
    s.because,
    s.created_at
from tocsin.subscription s
where s.topic = :topic
    and s.recipient_id = :recipient_id
order by s.event_id
limit 1;

-- name: list_older_subscriptions
-- What a person follows or has muted, newest first, from before a place in the list; each topic once.
select
    s.subscription_id as id,
    s.topic,
    s.level,
    s.because,
    s.created_at
from tocsin.subscription s
where s.recipient_id = :recipient_id
    and (s.created_at, s.subscription_id) < (coalesce(:at, 'infinity'::timestamptz), coalesce(:id, 9223372036854775807))
    and not exists (
        select
        from tocsin.subscription o
        where o.topic = s.topic
            and o.recipient_id = s.recipient_id
            and o.event_id < s.event_id
    )
order by s.created_at desc, s.subscription_id desc
limit :limit;

-- name: list_newer_subscriptions
-- The ones just after a place in the list, oldest first.
select
    s.subscription_id as id,
    s.topic,
    s.level,
    s.because,
    s.created_at
from tocsin.subscription s
where s.recipient_id = :recipient_id
    and (s.created_at, s.subscription_id) > (:at, :id)
    and not exists (
        select
        from tocsin.subscription o
        where o.topic = s.topic
            and o.recipient_id = s.recipient_id
            and o.event_id < s.event_id
    )
order by s.created_at, s.subscription_id
limit :limit;

-- name: latest_of_topics
-- What a person was last told of some topics, among their newest 500 notifications: a topic has no title of its own.
--
-- The bound keeps it to one range of the inbox' index and 500 keys of event, whatever the size of either.
with newest as materialized (
    select
        n.notification_id,
        n.event_id,
        n.created_at
    from tocsin.notification n
    where n.recipient_id = :recipient_id
        and n.in_inbox
        and n.archived_at is null
    order by n.created_at desc, n.notification_id desc
    limit 500
)
select distinct on (e.topic)
    e.topic,
    n.notification_id,
    e.title,
    e.action_url,
    n.created_at
from newest n
join tocsin.event e using (event_id)
where e.topic = any (:topics)
order by e.topic, n.created_at desc, n.notification_id desc;
