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
-- Deliveries that are not in a final state, by channel and state, and by how many seconds the latest of them is late.
select
    s.channel,
    s.state::text as state,
    count(*) as n,
    coalesce(max(extract(epoch from clock_timestamp() - s.due_at)), 0)::float8 as late
from (
    select
        d.channel,
        d.state,
        -- a due time in the future, of a retry, is not late
        case when d.due_at < clock_timestamp() then d.due_at end as due_at
    from tocsin.delivery d
    where d.due_at is not null
    union all
    -- in a lease
    select
        d.channel,
        d.state,
        null
    from tocsin.lease l
    cross join lateral unnest(l.delivery_ids) u (delivery_id)
    join tocsin.delivery d using (delivery_id)
    where tocsin.is_held(d, l.claim)
    union all
    select
        d.channel,
        d.state,
        d.created_at
    from tocsin.event_queue l
    join tocsin.delivery d using (event_id, channel)
    where d.delivery_id > l.dispatched_up_to
        and d.state = 'queued'
        and d.due_at is null
) s
group by s.channel, s.state;
