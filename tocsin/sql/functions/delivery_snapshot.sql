-- A delivery as it is at this moment: its content, its recipient, its address, and why it must not be sent, if so. A claim
-- reads it, and the check right before sending reads it again where the message was not sent at once.
--
-- The notification, which matters for some deliveries only, is joined by a key that is null for the others. Other such tables are
-- joined in subqueries with `offset 0`: these stay by themselves, so PostgreSQL checks their condition on the delivery first, and
-- does not execute them for the others. The time is that of the statement, before its snapshot: everything committed before it is seen.
create or replace function tocsin.delivery_snapshot(_delivery_id bigint) returns table (
    held_by uuid,
    digest_id bigint,
    priority smallint,
    max_attempts smallint,
    expires_at timestamptz,
    mandatory boolean,
    event_type text,
    label text,
    category text,
    title text,
    body text,
    body_html text,
    action_url text,
    initiator text,
    initiator_name text,
    title_many jsonb,
    name text,
    locale text,
    timezone text,
    created_at timestamptz,
    metadata jsonb,
    data jsonb,
    actions jsonb,
    topic text,
    subject text,
    replaces boolean,
    because text,
    decided_by text,
    invited text,
    address text,
    checked_at timestamptz,
    sandbox boolean,
    badge integer,
    options jsonb,
    throttled boolean,
    withheld text,
    wait double precision
)
language sql stable
as $$
    select
        -- the claim that holds it
        case when d.state = 'sending' and d.due_at is null then d.claim end as held_by,
        d.digest_id,
        coalesce(t.priority, 0::smallint) as priority,
        tocsin.most_attempts(d, t.max_attempts) as max_attempts,
        coalesce(d.expires_at, e.expires_at) as expires_at,
        coalesce(d.channel = any (t.mandatory_channels), false) as mandatory,
        coalesce(t.event_type, '') as event_type,
        coalesce(t.label, '') as label,
        coalesce(t.category, '') as category,
        coalesce(case when e.content is null then e.title else tocsin.text_for(e.content, r.locale, k.channel, 'title', e.title) end, '') as title,
        coalesce(case when e.content is null then e.body else tocsin.text_for(e.content, r.locale, k.channel, 'body', e.body) end, '') as body,
        case when e.content is null then e.body_html else tocsin.text_for(e.content, r.locale, k.channel, 'body_html', e.body_html) end as body_html,
        e.action_url,
        e.initiator,
        -- for the title of several about one subject in one message
        case
            when e.subject is not null and d.channel in ('email', 'push', 'web_push') and t.grouped
                then (select i.name from tocsin.recipient i where i.recipient_id = e.initiator)
        end as initiator_name,
        case when e.subject is not null and d.channel in ('email', 'push', 'web_push') and t.grouped then t.title_many end as title_many,
        r.name,
        r.locale,
        r.timezone,
        coalesce(e.created_at, d.created_at) as created_at,
        coalesce(e.metadata, '{}') as metadata,
        -- for the app on a phone
        case
            when e.content is not null and k.channel = 'push'
                then tocsin.push_data(tocsin.find_texts(e.content, r.locale, 'push', '{data}') -> 'data')
        end as data,
        e.actions,
        e.topic,
        e.subject,
        coalesce(e.replaces, false) as replaces,
        case when e.topic is not null then n.because end as because,
        -- a mail has the reason in its footer
        case when d.channel = 'email' and d.event_id is not null then n.decisions #>> '{email,1}' end as decided_by,
        e.email as invited,
        coalesce(
            case
                when d.device_id is not null then v.token
                when d.target_id is not null then g.url
                when d.recipient_id is null then e.email
                else r.email
            end,
            ''
        ) as address,
        statement_timestamp() as checked_at,
        coalesce(v.environment = 'sandbox', false) as sandbox,
        -- the exact count at this moment, for the app's icon
        case when k.channel = 'push' then tocsin.unread_count(d.recipient_id) end as badge,
        case
            when m.delivery_id is not null then jsonb_build_object(
                'name', g.name, 'secrets', g.secrets,
                'message', jsonb_build_object('type', m.type, 'at', m.at, 'data', m.data)
            )
            when g.target_id is not null then jsonb_build_object(
                'name', g.name, 'kind', g.kind, 'secrets', g.secrets,
                'replaces', case when e.replaces then tocsin.replaced_message(d, e) end
            )
            else v.keys
        end as options,
        t.throttle_most is not null as throttled,
        case
            -- what an app webhook is sent about an event outlives it
            when m.delivery_id is not null then
                case
                    when d.expires_at <= statement_timestamp() then 'expired'
                    when g.disabled_at is not null or g.target_id is null then 'no_target'
                end
            when e.cancelled_at is not null then tocsin.cancel_reason(e)
            when n.replaced_by is not null then 'replaced'
            when coalesce(d.expires_at, e.expires_at) <= statement_timestamp() then 'expired'
            when r.recipient_id is null and (d.recipient_id is not null or e.email is null and d.target_id is null) then 'erased'
            when d.target_id is not null and (g.recipient_id is distinct from d.recipient_id or g.disabled_at is not null or g.target_id is null)
                then 'no_target'
            -- an invitation whose address has an account by now: it is in that person's inbox
            when d.recipient_id is null and (n.recipient_id is not null or exists (select from tocsin.address_owner o where o.address = n.address)) then 'claimed'
            when p.enabled is false and d.digest_id is null and coalesce(d.channel <> all (t.mandatory_channels), true)
                then 'opted_out_since'
            when d.digest_id is not null and exists (
                select
                from tocsin.digest_preference g
                where g.recipient_id = d.recipient_id
                    and g.unsubscribed
            )
                then 'opted_out_since'
            -- the topic was muted or left since the fan-out
            when e.topic is not null and d.recipient_id is not null and d.channel <> all (t.mandatory_channels)
                and tocsin.topic_withheld_reason(e.topic, d.recipient_id, d.notification_id) is not null
                then tocsin.topic_withheld_reason(e.topic, d.recipient_id, d.notification_id)
            when (d.channel = any (t.skip_if_read) or k.channel = any (t.skip_if_read)) and (n.read_at is not null or n.archived_at is not null)
                then 'already_read'
            -- a button was pressed, on whatever device
            when e.actions is not null and d.channel <> all (t.mandatory_channels)
                and exists (
                    select
                    from tocsin.action a
                    where a.notification_id = d.notification_id
                )
                then 'already_read'
            when k.channel = 'push' and v.recipient_id is distinct from d.recipient_id then 'device_moved'
            when k.channel = 'push' and v.disabled_at is not null
                then case d.channel when 'push' then 'no_device' else 'no_subscription' end
            when d.channel = 'email' and d.recipient_id is not null and r.email is null then 'no_address'
            when d.channel = 'email' and s.key is not null then 'suppressed'
            when h.until is not null and d.target_id is null then 'quiet_hours'
        end as withheld,
        coalesce(extract(epoch from h.until - statement_timestamp()), 0)::float8 as wait
    from tocsin.delivery d
    -- a browser gets the texts and the timing of a phone
    cross join lateral (select case d.channel when 'web_push' then 'push' else d.channel end as channel) k
    left join tocsin.event e using (event_id)
    left join tocsin.event_type t using (event_type)
    left join tocsin.recipient r using (recipient_id)
    left join tocsin.notification n
        on n.notification_id = case
            when d.channel = 'email' or t.skip_if_read <> '{}' or d.recipient_id is null or e.subject is not null or e.topic is not null
                then d.notification_id
        end
    left join tocsin.suppression s on s.key = coalesce(r.address_key, tocsin.address_key(n.address))
    left join lateral (
        select v.token, v.environment, v.keys, v.recipient_id, v.disabled_at
        from tocsin.device v
        where d.device_id is not null
            and v.device_id = d.device_id
        offset 0
    ) v on true
    left join lateral (
        select g.target_id, g.url, g.name, g.secrets, g.kind, g.recipient_id, g.disabled_at
        from tocsin.target g
        where d.target_id is not null
            and g.target_id = d.target_id
        offset 0
    ) g on true
    left join lateral (
        select m.delivery_id, m.type, m.at, m.data
        from tocsin.webhook_message m
        where d.target_id is not null
            and d.notification_id is null
            and m.delivery_id = d.delivery_id
        offset 0
    ) m on true
    left join lateral (
        select tocsin.quiet_until(q, statement_timestamp()) as until
        from tocsin.quiet_hours q
        where q.recipient_id = d.recipient_id
            and t.priority < 2
    ) h on true
    left join lateral (
        -- that of the narrowest scope; sorting would take longer than everything else
        select max(
            case when p.scope = t.event_type then 4 when p.scope <> '*' then 2 else 0 end + p.enabled::integer
        ) & 1 = 1 as enabled
        from tocsin.preference p
        where p.recipient_id = d.recipient_id
            and p.channel = d.channel
            -- a badge is corrected for people who have push on for anything
            and (p.scope in (t.event_type, t.category || '.*', '*') or d.event_id is null and p.enabled)
    ) p on true
    where d.delivery_id = _delivery_id
    -- planned by itself, by keys: merged into another statement's joins it would be planned as if for the whole ledger
    offset 0
$$;

-- What the provider calls the message that this one replaces: the last one about the same subject to the same target, of its last
-- 200. Null where there is none, or the provider gave it no name.
create or replace function tocsin.replaced_message(_delivery tocsin.delivery, _event tocsin.event) returns text
language sql stable
as $$
    select o.provider_id
    from (
        select o.provider_id, o.event_id, o.delivery_id
        from tocsin.delivery o
        where o.target_id = _delivery.target_id
            and o.delivery_id < _delivery.delivery_id
        order by o.delivery_id desc
        limit 200
    ) o
    join tocsin.event e on e.event_id = o.event_id
    where e.subject = _event.subject
        and e.event_type = _event.event_type
        and o.provider_id is not null
    order by o.delivery_id desc
    limit 1
$$;
