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
    case when e.content is null then e.title else tocsin.listed_text(e.content, n.recipient_id, 'title', e.title) end as title,
    case when e.content is null then e.body else tocsin.listed_text(e.content, n.recipient_id, 'body', e.body) end as body,
    case when e.content is null then e.body_html else tocsin.listed_text(e.content, n.recipient_id, 'body_html', e.body_html) end as body_html,
    e.action_url,
    e.metadata,
    e.initiator,
    n.read_at is not null as read,
    n.read_at,
    n.created_at,
    n.in_inbox and n.archived_at is null as listed,
    n.in_inbox and n.archived_at is not null as archived,
    n.archived_at,
    n.decisions,
    n.subject,
    e.actions,
    case when e.actions is not null then tocsin.acted(n.notification_id) end as acted,
    case when e.initiator is not null then tocsin.initiator_profile(e.initiator) end as initiator_profile
from tocsin.notification n
join tocsin.event e using (event_id);
