-- name: list_groups
-- A page of a grouped inbox, from a position on or back to the page before; always at least one row, for the snapshot.
-- Without a snapshot it is the first page, and shows what this statement sees.
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
    s.as_of,
    h.day,
    h.single,
    f.count,
    f.capped,
    f.oldest_at,
    f.initiators,
    f.people,
    case when f.count > 1 then t.title_many end as title_many,
    (select r.locale from tocsin.recipient r where r.recipient_id = :recipient_id) as locale
from (select coalesce(:as_of, pg_current_snapshot()::text) as as_of) s
cross join lateral (
    select coalesce((select r.timezone from tocsin.recipient r where r.recipient_id = :recipient_id), 'UTC') as zone
    offset 0 -- read once, not for each member
) z
left join lateral tocsin.group_heads(
    :recipient_id, :read, :event_type, :category, :subject, :as_of::pg_snapshot, :at, :id, :newer, :limit
) h on true
left join tocsin.notification n on n.notification_id = h.notification_id
left join lateral tocsin.to_item(
    n.notification_id, :recipient_id, n.event_id, n.event_type, n.subject, n.read_at, n.created_at, false
) i on true
left join tocsin.event_type t on t.event_type = i.event_type
-- a second member decides whether there is more to read
left join lateral (
    select count(*) as found
    from (
        select
        from tocsin.group_members(:recipient_id, i.event_type, i.subject, h.day, z.zone, :as_of::pg_snapshot) g
        where not h.single
        order by g.created_at desc, g.notification_id desc
        limit 2
    ) g
) m on true
left join lateral (
    select w.count, w.capped, w.oldest_at, w.initiators, w.people
    from tocsin.group_facts(:recipient_id, i.event_type, i.subject, h.day, z.zone, :as_of::pg_snapshot) w
    where m.found > 1
    offset 0 -- keeps the condition inside, so that the function is called where it is true
) f on true
order by
    case when :newer then i.created_at end,
    case when :newer then i.id end,
    i.created_at desc,
    i.id desc;

-- name: list_group_members
-- A page of the members of a group, or the one notification of a group of one; always at least one row, for the snapshot.
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
cross join tocsin.zone_of(:recipient_id) z (zone)
left join lateral (
    (
        select m.notification_id
        from tocsin.group_members(:recipient_id, :event_type, :subject, :day, z.zone, null) m
        where not :newer
            and (m.created_at, m.notification_id) < (coalesce(:at, 'infinity'::timestamptz), coalesce(:id, 9223372036854775807))
        order by m.created_at desc, m.notification_id desc
        limit :limit
    )
    union all
    (
        select m.notification_id
        from tocsin.group_members(:recipient_id, :event_type, :subject, :day, z.zone, null) m
        where :newer
            and (m.created_at, m.notification_id) > (:at, :id)
        order by m.created_at, m.notification_id
        limit :limit
    )
    union all
    select n.notification_id
    from tocsin.notification n
    where n.notification_id = :notification_id
        and n.recipient_id = :recipient_id
        and n.in_inbox
        and n.archived_at is null
        and :at::timestamptz is null
) m on true
left join tocsin.notification_item i on i.id = m.notification_id
order by
    case when :newer then i.created_at end,
    case when :newer then i.id end,
    i.created_at desc,
    i.id desc;

-- name: mark_group_unread
-- Marks the members of a group unread, or its one notification; returns how many, and the transaction by which to undo it.
select
    u.marked,
    u.xid::text
from tocsin.mark_unread(
    :recipient_id,
    array(
        select m.notification_id
        from tocsin.group_members(
            :recipient_id, :event_type, :subject, :day, tocsin.zone_of(:recipient_id), :as_of::pg_snapshot
        ) m
        union all
        select :notification_id
    )
) u;

-- name: archive_group
-- Removes the members of a group from list and badge; returns their archived_at, null if there was nothing to remove.
select tocsin.archive_group(:recipient_id, :event_type, :subject, :day, :as_of::pg_snapshot);

-- name: get_inbox_preferences
-- How a person's inbox is shown.
select coalesce(p.grouped, true) as grouped
from (values (:recipient_id)) w (recipient_id)
left join tocsin.inbox_preference p using (recipient_id);

-- name: set_inbox_preferences!
-- Changes what is not null; creates the person where they are unknown.
with person as (
    insert into tocsin.recipient (recipient_id)
    values (:recipient_id)
    on conflict do nothing
)
insert into tocsin.inbox_preference as p (recipient_id, grouped)
values (:recipient_id, coalesce(:grouped, true))
on conflict (recipient_id) do update
set grouped = coalesce(:grouped, p.grouped), updated_at = now();
