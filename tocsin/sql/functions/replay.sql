-- Replays failed deliveries: they are due at once, with a new set of attempts and, since a delivery stays the same, with the
-- same Message-ID or apns-id. Earlier attempts are renumbered below 0, and number 0 records the replay, so that `why` shows
-- all of them. The check right before sending decides whether it may still be sent, as for any delivery.
--
-- _lift: where this very failure suppressed the address or disabled the device, that is undone first. Returns how many are
-- due again, and how many of the others stay as they are, by cause.
create or replace function tocsin.replay(_delivery_ids bigint[], _lift boolean, out replayed integer, out kept jsonb)
language plpgsql
as $$
declare
    _now timestamptz := clock_timestamp();
    _again bigint[];
begin
    with failed as (
        select d.delivery_id
        from tocsin.delivery d
        where d.delivery_id = any (_delivery_ids)
            and d.state = 'failed'
        order by d.delivery_id
        for update skip locked
    ),
    judged as (
        select
            d.delivery_id,
            case
                when e.cancelled_at is not null then 'cancelled'
                when coalesce(e.expires_at, d.expires_at) <= _now then 'expired'
                when not c.available then 'no_provider'
                when s.key is not null and not (_lift and s.reason = d.reason) then 'suppressed'
                when d.channel in ('push', 'web_push') and v.recipient_id is distinct from d.recipient_id then 'device_moved'
                when v.disabled_at is not null and not (_lift and v.disabled_reason = d.reason)
                    then case d.channel when 'push' then 'no_device' else 'no_subscription' end
                when d.target_id is not null
                    and (g.target_id is null or g.disabled_at is not null and not (_lift and g.disabled_reason = d.reason))
                    then 'no_target'
            end as kept
        from failed
        join tocsin.delivery d using (delivery_id)
        join tocsin.channel c using (channel)
        left join tocsin.event e using (event_id)
        left join tocsin.recipient r using (recipient_id)
        left join tocsin.notification n on n.notification_id = d.notification_id and d.recipient_id is null
        left join tocsin.suppression s on s.key = coalesce(r.address_key, tocsin.address_key(n.address)) and d.channel = 'email'
        left join tocsin.device v on v.device_id = d.device_id
        left join tocsin.target g on g.target_id = d.target_id
    )
    select
        coalesce(array_agg(j.delivery_id) filter (where j.kept is null), '{}'),
        coalesce(
            (
                select jsonb_object_agg(k.kept, k.n)
                from (
                    select o.kept, count(*) as n
                    from judged o
                    where o.kept is not null
                    group by o.kept
                ) k
            ),
            '{}'
        )
    into _again, kept
    from judged j;
    if _lift then
        delete from tocsin.suppression s
        using tocsin.delivery d
        left join tocsin.recipient r using (recipient_id)
        left join tocsin.notification n on n.notification_id = d.notification_id
        where d.delivery_id = any (_again)
            and d.channel = 'email'
            and s.key = coalesce(r.address_key, tocsin.address_key(n.address))
            and s.reason = d.reason;
        update tocsin.device v
        set disabled_at = null, disabled_reason = null
        from tocsin.delivery d
        where d.delivery_id = any (_again)
            and v.device_id = d.device_id
            and v.disabled_reason = d.reason;
        update tocsin.target g
        set disabled_at = null, disabled_reason = null, failing_since = null
        from tocsin.delivery d
        where d.delivery_id = any (_again)
            and g.target_id = d.target_id
            and g.disabled_reason = d.reason;
    end if;
    replayed := tocsin.requeue_settled(_again);
end
$$;

-- Makes deliveries that are over due at once, with a new set of attempts. `_expires_at`: those to app webhooks may be sent until
-- then. Returns how many.
create or replace function tocsin.requeue_settled(_delivery_ids bigint[], _expires_at timestamptz default null) returns integer
language plpgsql
as $$
declare
    _now timestamptz := clock_timestamp();
    _count integer;
begin
    -- by more than their range, so that no number is used twice on the way
    update tocsin.attempt a
    set attempt = a.attempt - s.span
    from (
        select o.delivery_id, max(o.attempt) - min(o.attempt) + 2 as span
        from tocsin.attempt o
        where o.delivery_id = any (_delivery_ids)
        group by o.delivery_id
    ) s
    where a.delivery_id = s.delivery_id;
    insert into tocsin.attempt (delivery_id, attempt, at, outcome)
    select u.delivery_id, 0, _now, 'replayed'
    from unnest(_delivery_ids) u (delivery_id);
    -- states: sent | failed | skipped | expired -> queued
    update tocsin.delivery d
    set state = 'queued',
        reason = 'replayed',
        due_at = _now,
        attempts = 0,
        settled_at = null,
        failed_at = null,
        expires_at = coalesce(_expires_at, d.expires_at),
        -- a mail that was sent alone stays alone: it has its own Message-ID
        burst_id = case when d.channel = 'email' then coalesce(d.burst_id, d.delivery_id) end
    where d.delivery_id = any (_delivery_ids);
    get diagnostics _count = row_count;
    perform tocsin.wake();
    return _count;
end
$$;
