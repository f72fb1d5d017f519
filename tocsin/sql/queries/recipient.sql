-- name: list_devices
-- A person's devices, the newest registration first; without :whole_tokens, only the last six characters of each token.
select
    d.device_id as id,
    case when :whole_tokens then d.token else right(d.token, 6) end as token,
    d.platform,
    d.provider,
    d.environment,
    d.label,
    d.created_at,
    d.registered_at,
    d.disabled_at,
    d.disabled_reason
from tocsin.device d
where d.recipient_id = :recipient_id
order by d.registered_at desc, d.device_id desc;

-- name: register_device
-- Registers a token for a person, and enables it again; creates the person where they are unknown.
select
    (r.device).device_id as id,
    right((r.device).token, 6) as token,
    (r.device).platform,
    (r.device).provider,
    (r.device).environment,
    (r.device).label,
    (r.device).created_at,
    (r.device).registered_at,
    (r.device).disabled_at,
    (r.device).disabled_reason,
    r.known
from tocsin.register_device(:recipient_id, :token, :platform, :provider, :environment, :label, :keys) r;

-- name: remove_device!
-- Deletes one device of a person.
delete from tocsin.device d
where d.device_id = :device_id
    and d.recipient_id = :recipient_id;

-- name: unregister_device!
-- The same by its token, for a client that kept only that.
delete from tocsin.device d
where d.token = tocsin.stored_token(d.provider, :token)
    and d.recipient_id = :recipient_id;

-- name: upsert_recipient
-- Creates a recipient or changes what is not null; returns whether it was created.
select tocsin.store_recipient(:recipient_id, :email, :name, :locale, :timezone, :avatar_url);

-- name: get_recipient
-- One person.
select
    r.recipient_id as id,
    r.email,
    r.name,
    r.locale,
    r.timezone,
    r.avatar_url,
    r.created_at,
    r.updated_at
from tocsin.recipient r
where r.recipient_id = :recipient_id;

-- name: erase_recipient
-- Erases a person and all data about them; false where nobody is known by that id.
select tocsin.erase_recipient(:recipient_id);

-- name: finish_erasures
-- Erases what was committed since an erasure, and ends it where no transaction is open any more that could do so.
select tocsin.finish_erasures();

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
    i.subject,
    i.read,
    i.read_at,
    i.created_at,
    i.archived,
    i.actions,
    i.acted,
    -- what is known of another person is not this person's
    null as initiator_profile,
    i.archived_at,
    i.decisions,
    n.because,
    n.address,
    (
        -- if others were notified of the event too, the key is not this person's
        select k.key
        from tocsin.idempotency k
        where k.event_id = i.event_id
            and not exists (
                select
                from tocsin.notification o
                where o.event_id = i.event_id
                    and o.recipient_id is distinct from :recipient_id
            )
        limit 1
    ) as idempotency_key,
    coalesce(
        (
            select jsonb_agg(tocsin.exported_delivery(d) order by d.delivery_id)
            from tocsin.delivery d
            where d.notification_id = i.id
        ),
        '[]'
    ) as deliveries
from tocsin.notification_item i
join tocsin.notification n on n.notification_id = i.id
where i.recipient_id = :recipient_id
order by i.id;

-- name: export_invitations
-- Notifications to a person's addresses from before they belonged to anybody, which nobody has claimed.
select
    i.id,
    i.event_id,
    i.event_type,
    i.title,
    i.body,
    i.body_html,
    i.action_url,
    i.metadata,
    i.initiator,
    i.created_at,
    n.address,
    coalesce(
        (
            select jsonb_agg(tocsin.exported_delivery(d) order by d.delivery_id)
            from tocsin.delivery d
            where d.notification_id = i.id
        ),
        '[]'
    ) as deliveries
from tocsin.notification n
join tocsin.notification_item i on i.id = n.notification_id
where n.recipient_id is null
    and n.address = any (tocsin.all_addresses_of(:recipient_id))
order by i.id;

-- name: export_scheduled
-- Scheduled events for a person or an address of theirs, also cancelled ones.
select
    e.event_id as id,
    e.event_type,
    e.title,
    e.body,
    e.body_html,
    e.action_url,
    e.metadata,
    e.initiator,
    e.email,
    e.send_at,
    e.cancelled_at,
    e.created_at
from tocsin.event e
where e.fanned_out_at is null
    and (
        :recipient_id = any (e.recipients)
        or tocsin.compared_address(e.email) = any (tocsin.all_addresses_of(:recipient_id))
    )
order by e.event_id;

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
-- The events that a person caused.
select
    e.event_id as id,
    e.event_type,
    e.title,
    e.created_at
from tocsin.event e
where e.initiator = :recipient_id
order by e.event_id;

-- name: export_mentions
-- The events whose metadata mention a person.
select
    e.event_id as id,
    e.event_type,
    e.title,
    e.created_at
from tocsin.event e
where tocsin.is_mentioned(e.metadata, :recipient_id)
order by e.event_id;

-- name: export_digests
-- The digests of a person, oldest first.
select
    g.digest_id as id,
    g.frequency,
    g.due_at,
    g.created_at,
    array(
        select i.notification_id
        from tocsin.digest_item i
        where i.digest_id = g.digest_id
        order by i.notification_id
    ) as notification_ids,
    coalesce(
        (
            select jsonb_agg(tocsin.exported_delivery(d) order by d.delivery_id)
            from tocsin.delivery d
            where d.digest_id = g.digest_id
        ),
        '[]'
    ) as deliveries
from tocsin.digest g
where g.recipient_id = :recipient_id
order by g.digest_id;

-- name: export_rest
-- All other data about a person.
select
    array(
        select i.notification_id
        from tocsin.digest_item i
        where i.recipient_id = :recipient_id
            and i.digest_id is null
        order by i.notification_id
    ) as waiting_for_digest,
    (
        select coalesce(jsonb_agg(tocsin.exported_delivery(d) order by d.delivery_id), '[]')
        from tocsin.delivery d
        where d.recipient_id = :recipient_id
            and coalesce(d.event_id, d.digest_id) is null
    ) as badge_pushes,
    (
        select coalesce(
            jsonb_agg(jsonb_build_object('type', m.type, 'at', tocsin.json_time(m.at), 'data', m.data) order by m.at),
            '[]'
        )
        from (
            select w.type, w.at, w.data
            from tocsin.webhook_message w
            where w.recipient_id = :recipient_id
            union all
            select o.type, o.at, o.data
            from tocsin.webhook_outbox o
            where o.recipient_id = :recipient_id
        ) m
    ) as webhook_messages,
    (
        select coalesce(
            jsonb_agg(
                jsonb_build_object('change', c.change, 'notification_ids', c.notification_ids, 'at', tocsin.json_time(c.at))
                order by c.at
            ),
            '[]'
        )
        from tocsin.inbox_change c
        where c.recipient_id = :recipient_id
    ) as inbox_changes,
    (
        select coalesce(
            jsonb_agg(jsonb_build_object('key', o.key, 'kept', o.kept, 'created_at', tocsin.json_time(o.created_at)) order by o.created_at),
            '[]'
        )
        from tocsin.opt_out o
        where o.recipient_id = :recipient_id
    ) as opt_outs,
    (
        select coalesce(
            jsonb_agg(
                jsonb_build_object(
                    'expires_at', tocsin.json_time(t.expires_at),
                    'usable_until', tocsin.json_time(t.usable_until),
                    'in_use_until', tocsin.json_time(t.in_use_until)
                )
                order by t.expires_at
            ),
            '[]'
        )
        from tocsin.stream_ticket t
        where t.recipient_id = :recipient_id
    ) as stream_tickets,
    (
        select coalesce(
            jsonb_agg(
                jsonb_build_object(
                    'channel', g.channel, 'name', g.name, 'kind', g.kind, 'url', g.url, 'created_at', tocsin.json_time(g.created_at),
                    'disabled_at', tocsin.json_time(g.disabled_at), 'disabled_reason', g.disabled_reason
                )
                order by g.target_id
            ),
            '[]'
        )
        from tocsin.target g
        where g.recipient_id = :recipient_id
    ) as targets,
    (select m.moved_at from tocsin.seen_mark m where m.recipient_id = :recipient_id) as seen_at,
    tocsin.unread_count(:recipient_id) as unread;

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

-- name: export_address_owners
-- The addresses that apps assigned to a person.
select
    c.address,
    c.claimed_at
from tocsin.address_owner c
where c.recipient_id = :recipient_id
order by c.claimed_at, c.address;

-- name: claim_email
-- Assigns an address to a recipient; returns how many notifications came into their inbox.
select tocsin.claim_email(:email, :recipient_id);

-- name: mark_subject_read
-- Marks what is about a subject as read for a person; returns how many.
select tocsin.mark_read(:recipient_id, :subject);

-- name: export_suppression
-- Why mail to a person's address is suppressed, if it is.
select s.reason
from tocsin.suppression s
join tocsin.recipient r on r.address_key = s.key
where r.recipient_id = :recipient_id;

-- name: export_suppressions
-- Why mail to addresses of a person is suppressed.
select
    a.address,
    s.reason,
    s.created_at
from unnest(tocsin.all_addresses_of(:recipient_id)) a (address)
join tocsin.suppression s on s.key = tocsin.address_key(a.address)
order by s.created_at, a.address;

-- name: erase_address
-- Erases all data about an address without an account; false where there was none.
select tocsin.erase_address(:email);
