-- name: get_quiet_hours
-- When somebody wants no mail and no push; no row for who never chose.
select
    q.starts,
    q.ends,
    q.timezone
from tocsin.quiet_hours q
where q.recipient_id = :recipient_id;

-- name: recipient_timezone
-- A person's own zone.
select coalesce(
    (
        select r.timezone
        from tocsin.recipient r
        where r.recipient_id = :recipient_id
    ),
    'UTC'
);

-- name: set_quiet_hours!
-- Sets them; creates the person where it is a first write.
with person as (
    insert into tocsin.recipient (recipient_id)
    values (:recipient_id)
    on conflict do nothing
)
insert into tocsin.quiet_hours (recipient_id, starts, ends, timezone)
values (:recipient_id, :starts, :ends, :timezone)
on conflict (recipient_id) do update
set starts = excluded.starts, ends = excluded.ends, timezone = excluded.timezone, updated_at = now();

-- name: end_quiet_hours!
-- None from now on.
delete from tocsin.quiet_hours q
where q.recipient_id = :recipient_id;

-- name: recheck_quiet_hours
-- What waits for the end of quiet hours is looked at anew.
with waiting as (
    update tocsin.delivery d
    set due_at = clock_timestamp()
    from tocsin.notification n
    where n.recipient_id = :recipient_id
        and n.created_at > clock_timestamp() - interval '2 days'
        and d.notification_id = n.notification_id
        and d.state = 'deferred'
        and d.reason = 'quiet_hours'
    returning 1
)
select count(*), tocsin.wake()
from waiting;
