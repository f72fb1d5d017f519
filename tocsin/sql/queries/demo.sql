-- name: list_people
-- People for the demo page.
select
    r.recipient_id as id,
    r.name,
    r.email
from tocsin.recipient r
order by r.created_at, r.recipient_id
limit :limit;

-- name: list_phones
-- A person's live phones with their whole tokens, by which the demo page knows what arrived.
select
    d.token,
    d.platform,
    d.provider,
    d.recipient_id
from tocsin.device d
where d.recipient_id = :recipient_id
    and d.provider <> 'web_push'
    and d.disabled_at is null
order by d.device_id
limit :limit;

-- name: devices_of_tokens
-- The devices with these tokens, also disabled ones.
select
    d.token,
    d.platform,
    d.provider,
    d.recipient_id
from tocsin.device d
where d.token = any (:tokens);

-- name: notification_of
-- The notification of an event for one person.
select n.notification_id
from tocsin.notification n
where n.event_id = :event_id
    and n.recipient_id = :recipient_id;

-- name: put_demo_webhook!
-- Makes the app webhook of the demo, or gives it this start's address and secret.
insert into tocsin.target as g (channel, name, url, events, secrets)
values ('webhook', :name, :url, :events, :secrets)
on conflict (channel, name) do update
set url = excluded.url,
    events = excluded.events,
    secrets = excluded.secrets,
    updated_at = clock_timestamp(),
    failing_since = null,
    disabled_at = null,
    disabled_reason = null;
