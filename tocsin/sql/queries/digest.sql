-- name: get_digest_preference
-- When a person gets digests and of what; no row for a person who never chose.
select
    p.frequency,
    p.categories,
    p.send_at,
    coalesce(p.timezone, 'UTC') as timezone,
    p.weekday,
    case when p.frequency <> 'off' then p.next_at end as next_at
from tocsin.digest_preference p
where p.recipient_id = :recipient_id;

-- name: digest_timezone
-- The time zone of a person's digest: its own, else the person's.
select coalesce(p.timezone, r.timezone)
from tocsin.recipient r
left join tocsin.digest_preference p using (recipient_id)
where r.recipient_id = :recipient_id;

-- name: digest_categories
-- Categories of which a digest may have something.
select array(
    select c.category
    from tocsin.category c
    where exists (
        select
        from tocsin.event_type t
        where t.category = c.category
            and t.allows_digest
            and t.retired_at is null
    )
    order by c.position
);

-- name: is_timezone
-- Whether a time zone is known by this name.
select exists (
    select
    from tocsin.timezone z
    where z.name = :timezone
);

-- name: set_digest_preference
-- Changes what is not null; creates the person where they are unknown.
select tocsin.set_digest_preference(
    :recipient_id, :frequency, :categories::text[], :send_at::time, :timezone, :weekday::smallint
);

-- name: assemble_digests
-- Makes the digests of one batch of people for whom one is due.
select
    a.people,
    a.digests,
    a.unsent
from tocsin.assemble_digests(:now, :limit) a;

-- name: schedule_leftover_digests
-- Makes digests due for people who have something waiting but no next digest.
select tocsin.schedule_leftover_digests(:now);

-- name: digests_at_work
-- Digests that are made and not sent yet, counted up to a limit.
select count(*)
from (
    (
        select
        from tocsin.delivery d
        where d.digest_id is not null
            and d.due_at is not null
    )
    union all
    (
        select
        from tocsin.lease l
        cross join lateral unnest(l.delivery_ids) u (delivery_id)
        join tocsin.delivery d using (delivery_id)
        where d.digest_id is not null
            and tocsin.is_held(d, l.claim)
    )
    limit :limit
) w;

-- name: digest_entries
-- The content of some digests, newest first within each category.
select
    e.digest_id,
    e.recipient_id,
    e.notification_id,
    e.event_type,
    e.created_at,
    e.read,
    e.title,
    e.body,
    e.body_html,
    e.action_url,
    e.label,
    e.category,
    e.category_label,
    e.actions,
    e.subject,
    e.about,
    e.initiator,
    e.initiator_name,
    e.title_many
from tocsin.digest_entry e
where e.digest_id = any (:digest_ids)
order by e.digest_id, e.category_position, e.created_at desc, e.notification_id desc;

-- name: waiting_entries
-- What would be in a person's digest if it were made now.
select
    e.digest_id,
    e.recipient_id,
    e.notification_id,
    e.event_type,
    e.created_at,
    e.read,
    e.title,
    e.body,
    e.body_html,
    e.action_url,
    e.label,
    e.category,
    e.category_label,
    e.actions,
    e.subject,
    e.about,
    e.initiator,
    e.initiator_name,
    e.title_many
from tocsin.digest_entry e
where e.recipient_id = :recipient_id
    and e.digest_id is null
order by e.category_position, e.created_at desc, e.notification_id desc;
