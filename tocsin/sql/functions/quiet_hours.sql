-- The end of the quiet hours in which a time falls; null outside of them.
create or replace function tocsin.quiet_until(_quiet tocsin.quiet_hours, _at timestamptz) returns timestamptz
language plpgsql stable
as $$
declare
    _zone text := coalesce(
        _quiet.timezone,
        (select r.timezone from tocsin.recipient r where r.recipient_id = _quiet.recipient_id),
        'UTC'
    );
    _local timestamp := _at at time zone _zone;
    _over_midnight boolean := _quiet.ends < _quiet.starts;
    _until timestamptz;
begin
    if _over_midnight and _local::time >= _quiet.starts then
        _until := (_local::date + 1 + _quiet.ends) at time zone _zone;
    elsif (_over_midnight or _local::time >= _quiet.starts) and _local::time < _quiet.ends then
        _until := (_local::date + _quiet.ends) at time zone _zone;
    end if;
    -- when the clock is set back, the same local time comes twice
    return case when _until > _at then _until end;
end
$$;

-- Deliveries that wait for the end of a person's quiet hours are due now; the check right before sending makes them wait
-- again where they have to.
create or replace function tocsin.recheck_quiet_hours(_recipient_id text) returns void
language plpgsql
as $$
begin
    update tocsin.delivery d
    set due_at = clock_timestamp()
    from tocsin.notification n
    where n.recipient_id = _recipient_id
        and n.created_at > clock_timestamp() - interval '2 days'
        and d.notification_id = n.notification_id
        and d.state = 'deferred'
        and d.reason = 'quiet_hours';
    perform tocsin.wake();
end
$$;
