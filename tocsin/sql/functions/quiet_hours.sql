-- The end of the quiet hours that somebody is in at a moment; null outside of them.
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
    -- where the clock is put back the same local time comes twice
    return case when _until > _at then _until end;
end
$$;
