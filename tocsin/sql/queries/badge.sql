-- name: listen_badge#
-- Hears whose inbox moved.
listen tocsin_badge;

-- name: unread_counts
-- Exact counts for several people in one read, in their order; the ids and the counts are one text each.
select tocsin.unread_counts_in_order($1::text[])::text;

-- name: current_snapshot
-- What this transaction sees.
select pg_current_snapshot()::text;

-- name: new_notifications
-- What came into several inboxes since each one's snapshot, at most :limit each. A reader that was cut off within an
-- earlier answer (`upto`) has its notifications as far as `seen`.
select
    s.position::integer as position,
    n.notification_id as id,
    n.event_id,
    n.event_type,
    split_part(n.event_type, '.', 1) as category,
    e.title,
    e.body,
    e.body_html,
    e.action_url,
    e.metadata,
    e.initiator,
    n.read_at is not null as read,
    n.read_at,
    n.created_at
from unnest(:recipient_ids::text[], :snapshots::pg_snapshot[], :uptos::pg_snapshot[], :seens::bigint[])
    with ordinality s (recipient_id, since, upto, seen, position)
cross join lateral (
    select
        c.notification_id,
        c.event_id,
        c.event_type,
        c.created_at,
        c.read_at
    from tocsin.notification c
    where c.recipient_id = s.recipient_id
        and c.in_inbox
        and c.archived_at is null
        and c.xid >= pg_snapshot_xmin(s.since)
        and not pg_visible_in_snapshot(c.xid, s.since)
        and (s.upto is null or c.notification_id > s.seen or not pg_visible_in_snapshot(c.xid, s.upto))
    order by c.notification_id
    limit :limit
) n
join tocsin.event e on e.event_id = n.event_id
order by s.position, n.notification_id;

-- name: inbox_changes
-- What several people did in their inboxes since each one's snapshot, oldest first.
select
    s.position::integer as position,
    c.change,
    c.notification_ids
from unnest(:recipient_ids::text[], :snapshots::pg_snapshot[]) with ordinality s (recipient_id, since, position)
join tocsin.inbox_change c on c.recipient_id = s.recipient_id
    and c.xid >= pg_snapshot_xmin(s.since)
    and not pg_visible_in_snapshot(c.xid, s.since)
order by s.position, c.at;
