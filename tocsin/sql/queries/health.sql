-- name: is_migrated
-- Whether the schema exists.
select exists (
    select
    from tocsin.migration
);

-- name: which_database
-- The server, its database and the role: the same by two addresses, if both lead to one place.
select
    extract(epoch from pg_postmaster_start_time())::float8,
    current_database(),
    current_user;

-- name: readiness
-- Whether the schema exists, and for how many seconds no process has led (null: none ever did).
select
    exists (select from tocsin.migration) as migrated,
    extract(epoch from clock_timestamp() - nullif(l.heartbeat_at, '-infinity'))::float8 as unled_for
from tocsin.leader l;

-- name: blocking_sessions
-- Sessions of others that hold what the service needs.
select
    s.pid,
    s.role_name,
    s.application_name,
    s.client,
    s.since,
    s.blocks
from tocsin.blocking_sessions() s;

-- name: unsettled
-- Deliveries that are not in a final state, by channel and state, and by how many seconds the latest of them is late. Of each channel
-- the first :most that are due are counted, and as many in event queues.
select
    c.channel,
    s.state::text as state,
    count(*) as n,
    coalesce(max(extract(epoch from clock_timestamp() - s.due_at)), 0)::float8 as late
from tocsin.channel c
cross join lateral (
    (
        select
            d.state,
            -- a due time in the future, of a retry, is not late
            case when d.due_at < clock_timestamp() then d.due_at end as due_at
        from tocsin.delivery d
        where d.channel = c.channel
            and d.due_at is not null
        order by d.due_at
        limit :most
    )
    union all
    -- in a lease
    select
        d.state,
        null
    from tocsin.lease l
    cross join lateral unnest(l.delivery_ids) u (delivery_id)
    join tocsin.delivery d using (delivery_id)
    where l.channel = c.channel
        and tocsin.is_held(d, l.claim)
    union all
    (
        select
            d.state,
            d.created_at
        from tocsin.event_queue l
        cross join lateral (
            -- an event queue is emptied from its start: what waits is at its end
            select q.delivery_id, q.state, q.due_at, q.created_at
            from tocsin.delivery q
            where q.event_id = l.event_id
                and q.channel = l.channel
            order by q.delivery_id desc
            limit :most
        ) d
        where l.channel = c.channel
            and d.delivery_id > l.dispatched_up_to
            and d.state = 'queued'
            and d.due_at is null
        limit :most
    )
) s
where c.task is not null
group by c.channel, s.state;
