-- The silent push that corrects the badge on a person's devices after they read something elsewhere.
--
-- It is a delivery without an event and without a digest. It is due after a few seconds, so that all that a person reads
-- meanwhile needs one push for each device; the count is read right before it is sent. No transaction of an app queues
-- it: the leader does, for the changes that it saw committed.

-- Queues one for each live device of these people that has none waiting; returns how many. One that is being sent does not
-- count as waiting: it may have read the count before the change. With `_seen`, records that everything in this snapshot
-- is done.
create or replace function tocsin.queue_badge_pushes(
    _recipients text[],
    _window interval,
    _life interval,
    _seen pg_snapshot
) returns integer
language sql
as $$
    with asked as (
        -- states: new -> queued
        insert into tocsin.delivery (recipient_id, channel, device_id, due_at, expires_at, created_at)
        select
            v.recipient_id, c.channel, v.device_id, clock_timestamp() + _window, clock_timestamp() + _life,
            clock_timestamp()
        from unnest(_recipients) u (recipient_id)
        join tocsin.device v using (recipient_id)
        join tocsin.channel c on c.channel = 'push'
        where v.disabled_at is null
            and c.available
            and exists (
                select
                from tocsin.provider p
                where p.channel = c.channel
                    and p.provider
                        = case when v.provider = 'apns' and v.environment = 'sandbox' then 'apns_sandbox' else v.provider end
            )
            and tocsin.wants_badge_pushes(v.recipient_id)
            and not exists (
                select
                from tocsin.delivery d
                where d.recipient_id = v.recipient_id
                    and d.device_id = v.device_id
                    and coalesce(d.event_id, d.digest_id) is null
                    and d.state in ('queued', 'deferred')
                -- asked for each device by itself: as a join it would read all that wait, for each device
                offset 0
            )
        returning 1
    ),
    marked as (
        update tocsin.badge_push_progress
        set snapshot = _seen
        where only_row
            and _seen is not null
    )
    select count(*)::integer
    from asked
$$;

-- Whether a person gets them: not after turning push off altogether, unless it is on for some category.
create or replace function tocsin.wants_badge_pushes(_recipient_id text) returns boolean
language sql stable
as $$
    select coalesce(bool_or(p.enabled), true)
    from tocsin.preference p
    where p.recipient_id = _recipient_id
        and p.channel = 'push'
        and (p.scope = '*' or p.enabled)
$$;
