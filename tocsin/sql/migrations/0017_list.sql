-- list_older_notifications, list_newer_notifications with filters, and unread_by_category: by type, so that what a person
-- has little of is found at once among a great many others. The first one counts at each notify, the other only as
-- something is read.
drop index tocsin.notification_unread;
create index notification_unread on tocsin.notification (recipient_id, event_type, created_at desc, notification_id desc)
where in_inbox and archived_at is null and read_at is null;
create index notification_read on tocsin.notification (recipient_id, event_type, created_at desc, notification_id desc)
where in_inbox and archived_at is null and read_at is not null;
