-- name: import_notifications
-- Imports a batch; returns how many are new, how many were imported before, and what was refused.
select
    i.imported,
    i.known,
    i.faults
from tocsin.import_notifications(:source, :rows, :create_recipients) i;

-- name: find_table
-- A table's name, or null where there is none.
select to_regclass(:name)::text;

-- name: names
-- The names of all recipients that have one.
select
    r.recipient_id,
    r.name
from tocsin.recipient r
where r.name is not null;

-- name: count_django_notifications
-- How many rows there are to import.
select count(*)
from {table} n
where not n.deleted;

-- name: django_notifications
-- Rows of django-notifications in the order of their ids. An actor that is of the table of the recipients is the initiator.
select
    n.id,
    n.recipient_id,
    n.verb,
    n.description,
    n.timestamp,
    n.unread,
    n.data::text as data,
    case when u.is_user then n.actor_object_id end as initiator,
    jsonb_build_object(
        'level', n.level,
        'actor', a.app_label || '.' || a.model || ':' || n.actor_object_id,
        'target', t.app_label || '.' || t.model || ':' || n.target_object_id,
        'action_object', o.app_label || '.' || o.model || ':' || n.action_object_object_id
    ) as objects
from {table} n
join {content_type} a on a.id = n.actor_content_type_id
left join {content_type} t on t.id = n.target_content_type_id
left join {content_type} o on o.id = n.action_object_content_type_id
cross join lateral (
    select exists (
        select
        from pg_constraint c
        join pg_class k on k.oid = c.confrelid
        join pg_attribute f on f.attrelid = c.conrelid and c.conkey = array[f.attnum]
        where c.conrelid = n.tableoid
            and c.contype = 'f'
            and f.attname = 'recipient_id'
            and k.relname = a.app_label || '_' || a.model
    ) as is_user
) u
where not n.deleted
order by n.id;
