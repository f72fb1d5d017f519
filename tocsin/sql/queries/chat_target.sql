-- name: put_chat_target
-- Makes a target of a chat, or changes it and enables it again.
with known as (
    select exists (
        select
        from tocsin.target g
        where g.channel = 'chat'
            and g.name = :name
    ) as known
)
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
    (select k.known from known k) as known;

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
