-- A notification as people read it: its own row and the content of its event.
--
-- The planner sees through a view, so `listed` and `not read` still find the partial indexes of tocsin.notification.
create or replace view tocsin.notification_item as
select
    n.notification_id as id,
    n.recipient_id,
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
    n.created_at,
    n.in_inbox and n.archived_at is null as listed,
    n.archived_at,
    n.decisions,
    n.subject
from tocsin.notification n
join tocsin.event e using (event_id);
