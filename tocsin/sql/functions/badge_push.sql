-- The silent push that corrects the badge on a person's devices after they read elsewhere.
--
-- It is a delivery like any other, of no event and no digest. It is due after a few seconds, so that all that a person
-- reads meanwhile is one push for each device; its last look takes the count. No transaction of an app asks for it: the
-- elected listener does, for what it saw committed.

-- Asks for one on each live device of these people that has none waiting; answers how many. One that is just being sent
-- doesn't count: its last look may have been before. With `_seen`, all that this snapshot saw has been asked for.
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
                -- asked for each device by itself: as a join it would go through all that wait, for each
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

-- Not for those who turned push off altogether; one category that they turned on again has badges to correct.
create or replace function tocsin.wants_badge_pushes(_recipient_id text) returns boolean
language sql stable
as $$
    select coalesce(bool_or(p.enabled), true)
    from tocsin.preference p
    where p.recipient_id = _recipient_id
        and p.channel = 'push'
        and (p.scope = '*' or p.enabled)
$$;
