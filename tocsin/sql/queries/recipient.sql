-- name: upsert_recipient
-- Creates a person or changes what is not null; true where it was created.
with known as (
    select exists (
        select
        from tocsin.recipient r
        where r.recipient_id = :recipient_id
    ) as known
)
select not k.known
from known k
cross join tocsin.upsert_recipient(:recipient_id, :email, :name, :locale, :timezone);

-- name: get_recipient
-- One person.
select
    r.recipient_id as id,
    r.email,
    r.name,
    r.locale,
    r.timezone,
    r.created_at,
    r.updated_at
from tocsin.recipient r
where r.recipient_id = :recipient_id;

-- name: erase_recipient
-- Erases a person and all that is held of them; false where nobody was known by that id.
select tocsin.erase_recipient(:recipient_id);

-- name: export_notifications
-- All notifications of a person with their decisions and deliveries, oldest first.
select
    i.id,
    i.event_id,
    i.event_type,
    i.category,
    i.title,
    i.body,
    i.body_html,
    i.action_url,
    i.metadata,
    i.initiator,
    i.read,
    i.read_at,
    i.created_at,
    i.archived_at,
    i.decisions,
    coalesce(
        (
            select jsonb_agg(
                jsonb_build_object(
                    'channel', d.channel,
                    'state', d.state,
                    'reason', d.reason,
                    'address', d.address,
                    'created_at', d.created_at,
                    'settled_at', d.settled_at,
                    'attempts', (
                        select coalesce(
                            jsonb_agg(
                                jsonb_build_object('at', a.at, 'outcome', a.outcome, 'reason', a.reason)
                                order by a.attempt
                            ),
                            '[]'
                        )
                        from tocsin.attempt a
                        where a.delivery_id = d.delivery_id
                    )
                )
                order by d.delivery_id
            )
            from tocsin.delivery d
            where d.notification_id = i.id
        ),
        '[]'
    ) as deliveries
from tocsin.notification_item i
where i.recipient_id = :recipient_id
order by i.id;

-- name: export_preferences
-- All choices of a person.
select
    p.scope,
    p.channel,
    p.enabled,
    p.updated_at
from tocsin.preference p
where p.recipient_id = :recipient_id
order by p.scope, p.channel;

-- name: export_initiated
-- The events that name a person as the one who caused them.
select
    e.event_id as id,
    e.event_type,
    e.title,
    e.created_at
from tocsin.event e
where e.initiator = :recipient_id
order by e.event_id;

-- name: export_subscriptions
-- All topics that a person follows or has muted.
select
    s.topic,
    s.level,
    s.because,
    s.created_at,
    s.updated_at
from tocsin.subscription s
where s.recipient_id = :recipient_id
order by s.topic, s.event_id;

-- name: export_claims
-- The addresses that an app said are theirs.
select
    c.address,
    c.claimed_at
from tocsin.claim c
where c.recipient_id = :recipient_id
order by c.claimed_at, c.address;

-- name: claim_email
-- Says whose an address is; answers how many notifications became theirs.
select tocsin.claim_email(:email, :recipient_id);

-- name: export_suppression
-- Why mail to a person's address is held back, if it is.
select s.reason
from tocsin.suppression s
join tocsin.recipient r using (address)
where r.recipient_id = :recipient_id;
