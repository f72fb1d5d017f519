-- A notification as people read it: its own row and the content of its event. This is the one definition of what a list, a
-- stream and a single notification show; `initiator_profile` and `acted` are read only where there is an initiator or a button.
--
-- The planner replaces the call by its statement, so it costs nothing. Its arguments are columns of tocsin.notification.
create or replace function tocsin.to_item(
    _notification_id bigint,
    _recipient_id text,
    _event_id bigint,
    _event_type text,
    _subject text,
    _read_at timestamptz,
    _created_at timestamptz,
    _archived boolean
) returns table (
    id bigint,
    event_id bigint,
    event_type text,
    category text,
    title text,
    body text,
    body_html text,
    action_url text,
    metadata jsonb,
    initiator text,
    subject text,
    read boolean,
    read_at timestamptz,
    created_at timestamptz,
    archived boolean,
    actions jsonb,
    acted jsonb,
    initiator_profile jsonb
)
language sql stable
as $$
    select
        _notification_id,
        e.event_id,
        _event_type,
        split_part(_event_type, '.', 1),
        case when e.content is null then e.title else tocsin.listed_text(e.content, _recipient_id, 'title', e.title) end,
        case when e.content is null then e.body else tocsin.listed_text(e.content, _recipient_id, 'body', e.body) end,
        case when e.content is null then e.body_html else tocsin.listed_text(e.content, _recipient_id, 'body_html', e.body_html) end,
        e.action_url,
        e.metadata,
        e.initiator,
        _subject,
        _read_at is not null,
        _read_at,
        _created_at,
        _archived,
        e.actions,
        case when e.actions is not null then tocsin.acted(_notification_id) end,
        case when e.initiator is not null then tocsin.initiator_profile(e.initiator) end
    from tocsin.event e
    where e.event_id = _event_id
$$;

-- All notifications so. The planner sees through a view too, so `listed` and `not read` still find the partial indexes of
-- tocsin.notification.
create or replace view tocsin.notification_item as
select
    i.id,
    n.recipient_id,
    i.event_id,
    i.event_type,
    i.category,
    i.title,
    i.body,
    i.body_html,
    i.action_url,
    i.metadata,
    i.initiator,
    n.read_at is not null as read,
    n.read_at,
    n.created_at,
    n.in_inbox and n.archived_at is null as listed,
    i.archived,
    n.archived_at,
    n.decisions,
    n.subject,
    i.actions,
    i.acted,
    i.initiator_profile
from tocsin.notification n
cross join lateral tocsin.to_item(
    n.notification_id,
    n.recipient_id,
    n.event_id,
    n.event_type,
    n.subject,
    n.read_at,
    n.created_at,
    n.in_inbox and n.archived_at is not null
) i;
