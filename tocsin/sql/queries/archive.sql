-- name: list_archived
-- A page of the archive from a position in it on, nearest first: older ones, or newer ones; always at least one row, for the
-- snapshot.
select
    s.as_of,
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
from (select pg_current_snapshot()::text as as_of) s
left join tocsin.archived_page(
    :recipient_id, :read, :event_type, :category, :subject, :newer, :at, :id, :limit
) p on true
left join tocsin.notification_item i on i.id = p.notification_id
order by
    case when :newer then i.created_at end,
    case when :newer then i.id end,
    i.created_at desc,
    i.id desc;

-- name: archive
-- Removes one from list and badge; returns whether it was there.
select tocsin.archive(:recipient_id, :notification_id);

-- name: archived_at
-- When a person archived one.
select n.archived_at
from tocsin.notification n
where n.notification_id = :notification_id
    and n.recipient_id = :recipient_id;

-- name: unarchive
-- Brings one back; returns whether it is in the inbox now.
select tocsin.unarchive(:recipient_id, :notification_id);

-- name: archive_all
-- Archives everything that a list with these filters could show; returns how many, and the archived_at by which to undo it.
select
    a.archived,
    a.archived_at
from tocsin.archive_all(:recipient_id, :read, :category, :event_type, :subject, :as_of::pg_snapshot) a;

-- name: undo_mark_all_read
-- Marks everything unread that has exactly this read_at; returns how many.
select tocsin.undo_mark_all_read(:recipient_id, :read_at);

-- name: undo_archive_all
-- Brings everything back that has exactly this archived_at; returns how many.
select tocsin.undo_archive_all(:recipient_id, :archived_at);
