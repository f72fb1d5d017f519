-- name: list_notifications
-- A page of the inbox without a filter, newest first, from a position on; always at least one row, for the snapshot. It reads
-- along notification_inbox, and the events of no more rows than the page has.
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
    i.initiator_profile,
    s.as_of
from (select pg_current_snapshot()::text as as_of) s
left join lateral (
    select n.notification_id, n.event_id, n.event_type, n.subject, n.read_at, n.created_at
    from tocsin.notification n
    where n.recipient_id = :recipient_id
        and n.in_inbox
        and n.archived_at is null
        and (n.created_at, n.notification_id) < (coalesce(:at, 'infinity'::timestamptz), coalesce(:id, 9223372036854775807))
    order by n.created_at desc, n.notification_id desc
    limit :limit
) n on true
left join lateral tocsin.to_item(
    n.notification_id, :recipient_id, n.event_id, n.event_type, n.subject, n.read_at, n.created_at, false
) i on true
order by n.created_at desc, n.notification_id desc;

-- name: list_filtered
-- Any other page of the inbox or of the archive, nearest first: older ones from a position on, or newer ones; always at least one
-- row, for the snapshot.
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
    i.initiator_profile,
    s.as_of
from (select pg_current_snapshot()::text as as_of) s
left join tocsin.inbox_page(
    :recipient_id, :read, :event_type, :category, :subject, :archived, :newer, :at, :id, :limit
) n on true
left join lateral tocsin.to_item(
    n.notification_id, :recipient_id, n.event_id, n.event_type, n.subject, n.read_at, n.created_at, :archived
) i on true
order by
    case when :newer then n.created_at end,
    case when :newer then n.notification_id end,
    n.created_at desc,
    n.notification_id desc;

-- name: get_notification
-- One notification of a person, in the inbox or not.
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
    i.initiator_profile
from tocsin.notification_item i
where i.id = :notification_id
    and i.recipient_id = :recipient_id;

-- name: mark_read
-- Marks one read or unread; returns whether that changed something.
select tocsin.mark_read(:recipient_id, :notification_id, :read);

-- name: mark_seen
-- Moves a person's mark of what they have seen to the list of this snapshot (null: to now).
select tocsin.mark_seen(:recipient_id, :as_of::pg_snapshot);

-- name: mark_all_read
-- Marks everything read that a list with these filters could show; returns how many, and the read_at by which to undo it.
select
    m.marked,
    m.read_at
from tocsin.mark_all_read(:recipient_id, :category, :event_type, :as_of::pg_snapshot, :subject) m;

-- name: unread_by_category
-- How many are unread in each category that has some.
select
    split_part(n.event_type, '.', 1) as category,
    count(*)::integer as count
from tocsin.notification n
where n.recipient_id = :recipient_id
    and n.in_inbox
    and n.archived_at is null
    and n.read_at is null
group by split_part(n.event_type, '.', 1)
order by split_part(n.event_type, '.', 1);

-- name: why
-- What was decided for each channel of some notifications, and what became of the deliveries.
select
    n.notification_id,
    n.event_id,
    e.title,
    n.created_at,
    n.recipient_id,
    n.event_type,
    t.label as event_type_label,
    c.label as category_label,
    n.archived_at is not null as archived,
    tocsin.left_inbox(e, n.replaced_by) as left_inbox,
    w.decisions,
    array(
        select k.channel
        from tocsin.channel k
        where w.decisions ? k.channel
        order by k.position
    ) as channels,
    coalesce(d.deliveries, '[]') as deliveries,
    n.because,
    e.topic,
    coalesce(v.devices, '[]') as disabled_devices,
    e.email,
    tocsin.complaints_of(n.recipient_id) as complaints
from tocsin.notification n
join tocsin.event e using (event_id)
join tocsin.event_type t on t.event_type = n.event_type
join tocsin.category c on c.category = t.category
cross join lateral tocsin.with_absent_channels(n.decisions) w (decisions)
cross join lateral (
    select jsonb_agg(
        jsonb_build_object(
            'channel', d.channel,
            'state', d.state,
            'reason', d.reason,
            'address', d.address,
            'by_name', d.target_id is not null,
            'due_at', d.due_at,
            'digest', d.digest,
            'settled_at', d.settled_at,
            'mail_event', case when d.channel = 'email' and not d.left_out then tocsin.mail_event_of(d.delivery_id, d.burst_id) end,
            -- not one that moved to another person since
            'device', (
                select jsonb_build_object(
                    'platform', v.platform,
                    'token', case when length(v.token) > 12 then right(v.token, 6) end,
                    'disabled_reason', v.disabled_reason
                )
                from tocsin.device v
                where v.device_id = d.device_id
                    and v.recipient_id = n.recipient_id
            ),
            'attempts', (
                select coalesce(
                    jsonb_agg(
                        jsonb_build_object('at', a.at, 'outcome', a.outcome, 'reason', a.reason, 'provider', a.provider)
                        order by a.attempt
                    ),
                    '[]'
                )
                from tocsin.attempt a
                where a.delivery_id = d.delivery_id
                    and not d.left_out
            )
        )
        order by d.delivery_id
    ) as deliveries
    from (
        select
            w.delivery_id, w.channel, w.state::text, w.reason, w.address, w.due_at, w.device_id, w.target_id, w.settled_at, w.burst_id,
            false as digest, false as left_out
        from tocsin.delivery w
        where w.notification_id = n.notification_id
        union all
        -- the digest in which it was, or that left it out
        select
            w.delivery_id,
            w.channel,
            case
                when l.reason is null then w.state::text
                when e.cancelled_at is null then 'skipped'
                else 'cancelled'
            end,
            coalesce(l.reason, w.reason), w.address, w.due_at, w.device_id, w.target_id, w.settled_at, w.burst_id,
            true, l.reason is not null
        from tocsin.digest_item i
        join tocsin.delivery w using (digest_id)
        cross join lateral (
            select case when w.state = 'sent' then tocsin.left_out_of_digest(n, e, coalesce(w.checked_at, w.settled_at)) end
        ) l (reason)
        where i.notification_id = n.notification_id
    ) d
) d
cross join lateral (
    select jsonb_agg(
        jsonb_build_object(
            'platform', v.platform,
            'token', case when length(v.token) > 12 then right(v.token, 6) end,
            'disabled_reason', v.disabled_reason
        )
        order by v.device_id
    ) as devices
    from tocsin.device v
    where n.decisions -> 'push' ->> 1 = 'no_device'
        and v.recipient_id = n.recipient_id
        and v.provider <> 'web_push'
        and v.created_at <= n.created_at
        and v.disabled_at is not null
) v
where n.notification_id = any (:notification_ids::bigint[])
    and (:recipient_id::text is null or n.recipient_id = :recipient_id);

-- name: press_action
-- Presses a button of a person's notification; returns how it ended, and what was chosen.
select
    p.outcome,
    p.chosen
from tocsin.press_action(:recipient_id, :notification_id, :key) p;

-- name: actions_state
-- Why no button of a person's notification can be pressed any more, null where one can; and the person's language.
select
    tocsin.actions_closed(n, e) as closed,
    r.locale
from tocsin.notification n
join tocsin.event e using (event_id)
join tocsin.recipient r using (recipient_id)
where n.notification_id = :notification_id
    and n.recipient_id = :recipient_id;
