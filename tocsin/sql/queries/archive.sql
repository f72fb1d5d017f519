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

-- name: undo_mark_unread
-- Marks everything read again that this transaction marked unread; returns how many.
select tocsin.undo_mark_unread(:recipient_id, :xid::xid8);

-- name: undo_archive_all
-- Brings everything back that has exactly this archived_at; returns how many.
select tocsin.undo_archive_all(:recipient_id, :archived_at);
