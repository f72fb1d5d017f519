-- name: list_event_types
-- The catalogue in its order.
select
    c.category,
    c.label as category_label,
    t.event_type,
    t.label,
    t.default_channels,
    t.mandatory_channels,
    (array['low', 'normal', 'high'])[t.priority + 1] as priority,
    t.allows_digest as digest
from tocsin.event_type t
join tocsin.category c using (category)
where t.retired_at is null
order by c.position, t.position, t.event_type;

-- name: get_event_type
-- One event type, retired or not.
select
    c.category,
    c.label as category_label,
    t.event_type,
    t.label,
    t.default_channels,
    t.mandatory_channels,
    (array['low', 'normal', 'high'])[t.priority + 1] as priority,
    t.allows_digest as digest
from tocsin.event_type t
join tocsin.category c using (category)
where t.event_type = :event_type;

-- name: nearest_event_types
-- Null where there is such an event type, retired or not; else the nearest known ones.
select tocsin.nearest_event_types(left(:event_type, 100))
where not exists (
    select
    from tocsin.event_type t
    where t.event_type = :event_type
);

-- name: categories_without
-- Null where there is such a category; else those that there are.
select string_agg(c.category, ', ' order by c.position)
from tocsin.category c
having bool_and(c.category <> :category);
