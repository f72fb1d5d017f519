-- name: put_webhook
-- Makes a webhook, or changes it and enables it again; `created` where it is new. The secrets of one that exists stay.
insert into tocsin.target as g (channel, name, url, recipient_id, events, secrets)
values ('webhook', :name, :url, :recipient_id, :events, :secrets)
on conflict (channel, name) do update
set url = excluded.url,
    recipient_id = excluded.recipient_id,
    events = excluded.events,
    updated_at = clock_timestamp(),
    failing_since = null,
    disabled_at = null,
    disabled_reason = null
returning g.xmax = 0 as created;

-- name: recipient_exists
-- Whether a person is known.
select exists (
    select
    from tocsin.recipient r
    where r.recipient_id = :recipient_id
);

-- name: list_webhooks
-- All webhooks by name, or one; without their secrets.
select
    g.target_id as id,
    g.name,
    g.url,
    g.events,
    g.recipient_id as recipient,
    g.created_at,
    g.updated_at,
    g.failing_since,
    g.disabled_at,
    g.disabled_reason
from tocsin.target g
where g.channel = 'webhook'
    and (:name::text is null or g.name = :name)
order by g.name;

-- name: delete_webhook!
-- Deletes a webhook; what waits for it is not sent.
delete from tocsin.target g
where g.channel = 'webhook'
    and g.name = :name;

-- name: rotate_secret!
-- Puts a new secret before the ones that are still valid; the newest of these is valid until then, the others no more.
update tocsin.target g
set secrets = jsonb_build_array(
        jsonb_build_object('secret', :secret::text),
        jsonb_build_object('secret', g.secrets -> 0 ->> 'secret', 'until', :until::timestamptz)
    )
where g.channel = 'webhook'
    and g.name = :name;

-- name: queue_webhook_test
-- Queues a message that tests a webhook; returns its delivery.
select tocsin.queue_webhook_test(:id);

-- name: replay_webhook
-- Sends messages of a webhook once more; returns how many.
select tocsin.replay_webhook(:id, :delivery_id, :since, :until, :failed, :most);

-- name: list_webhook_messages
-- The newest messages of a webhook, below a delivery's id where one is given.
select
    d.delivery_id,
    coalesce(m.type, 'notification.created') as type,
    coalesce(m.at, d.created_at) as at,
    d.state,
    d.reason,
    d.attempts
from tocsin.delivery d
left join tocsin.webhook_message m using (delivery_id)
where d.target_id = :id
    and d.delivery_id < :before
    and (:state::text is null or d.state = :state::tocsin.delivery_state)
order by d.delivery_id desc
limit :limit;

-- name: is_webhook_wanted
-- Whether an app webhook wants anything, or the outbox has something left.
select exists (select from tocsin.wanted_webhook_type) or exists (select from tocsin.webhook_outbox);

-- name: report_unsubscribed
-- Writes to the outbox that a link in a mail turned something off.
select tocsin.report_unsubscribed(:recipient_id, :scope, :names);

-- name: queue_webhooks
-- Makes deliveries of the oldest rows of the outbox; returns how many rows.
select tocsin.queue_webhooks(:most);

-- name: failing_webhooks
-- The latest app webhooks that fail or are disabled.
select g.name, g.failing_since, g.disabled_at, g.disabled_reason
from tocsin.target g
where tocsin.is_app_webhook(g)
    and coalesce(g.disabled_at, g.failing_since) is not null
order by coalesce(g.disabled_at, g.failing_since) desc
limit 5;

-- name: disable_failing_webhooks
-- Disables webhooks that failed for five days; returns all that were disabled since a time.
select w.name, w.reason
from tocsin.disable_failing_webhooks(:now, :since) w;

-- name: put_chat_target
-- Makes a target of a chat, or changes it and enables it again.
insert into tocsin.target as g (channel, name, kind, url, recipient_id, topic)
values ('chat', :name, :chat_kind, :url, :recipient_id, :topic)
on conflict (channel, name) do update
set kind = excluded.kind,
    url = excluded.url,
    recipient_id = excluded.recipient_id,
    topic = excluded.topic,
    updated_at = clock_timestamp(),
    failing_since = null,
    disabled_at = null,
    disabled_reason = null
returning
    g.target_id as id,
    g.name,
    g.kind,
    g.url,
    g.recipient_id as recipient,
    g.topic,
    g.created_at,
    g.disabled_at,
    g.disabled_reason,
    g.xmax <> 0 as known;

-- name: check_recipient_known
-- Raises an error where nobody has this id.
select tocsin.check_recipients_known(array[:recipient_id], 'recipient');

-- name: check_topic
-- Raises an error where this is not a valid topic.
select tocsin.check_topic(:topic);

-- name: list_older_chat_targets
-- Targets of chats, newest first, from a position in the list on; of one person or one topic, where given.
select
    g.target_id as id,
    g.name,
    g.kind,
    g.url,
    g.recipient_id as recipient,
    g.topic,
    g.created_at,
    g.disabled_at,
    g.disabled_reason,
    true as known
from tocsin.target g
where g.channel = 'chat'
    and (:recipient_id::text is null or g.recipient_id = :recipient_id)
    and (:topic::text is null or g.topic = :topic)
    and (g.created_at, g.target_id) < (coalesce(:at, 'infinity'::timestamptz), coalesce(:id, 9223372036854775807))
order by g.created_at desc, g.target_id desc
limit :limit;

-- name: list_newer_chat_targets
-- The targets just after a position in the list, oldest first.
select
    g.target_id as id,
    g.name,
    g.kind,
    g.url,
    g.recipient_id as recipient,
    g.topic,
    g.created_at,
    g.disabled_at,
    g.disabled_reason,
    true as known
from tocsin.target g
where g.channel = 'chat'
    and (:recipient_id::text is null or g.recipient_id = :recipient_id)
    and (:topic::text is null or g.topic = :topic)
    and (g.created_at, g.target_id) > (:at, :id)
order by g.created_at, g.target_id
limit :limit;

-- name: get_chat_target
-- One target of a chat.
select
    g.target_id as id,
    g.name,
    g.kind,
    g.url,
    g.recipient_id as recipient,
    g.topic,
    g.created_at,
    g.disabled_at,
    g.disabled_reason,
    true as known
from tocsin.target g
where g.channel = 'chat'
    and g.name = :name;

-- name: delete_chat_target
-- Deletes a target by its name; returns whether there was one.
with gone as (
    delete from tocsin.target g
    where g.channel = 'chat'
        and g.name = :name
    returning 1
)
select exists (select from gone);

-- name: disabled_chat_targets
-- The latest targets of topics that are disabled; a person's own is for the app to ask about.
select g.name, g.kind, g.disabled_at, g.disabled_reason
from tocsin.target g
where g.channel = 'chat'
    and g.topic is not null
    and g.disabled_at is not null
order by g.disabled_at desc
limit 5;
