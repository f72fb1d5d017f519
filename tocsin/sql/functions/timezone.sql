-- The time zones that this PostgreSQL knows: reading its own view takes a tenth of a second.
insert into tocsin.timezone (name)
select z.name
from pg_timezone_names z
where z.name !~ '^(posix|right)/'
    and z.name not in ('Factory', 'localtime', 'posixrules')
on conflict do nothing;

-- When a zone's offset changed and will change from 1970 to 2050, in seconds since 1970, each with the offset from UTC that is
-- valid from then on, in seconds. By PostgreSQL's own rules, of which Python may have another version
-- (docs/adr/0051-time-zone-rules.md). Changes are searched week by week, so two that cancel each other within a week are missed.
create or replace function tocsin.zone_changes(_zone text, out starts bigint[], out utc_offsets integer[])
language plpgsql stable
as $$
declare
    _week constant bigint := 604800;
    _low bigint;
    _high bigint;
    _middle bigint;
    _before integer;
    _after integer;
begin
    starts := '{0}';
    utc_offsets := array[tocsin.utc_offset(_zone, 0)];
    for _high, _before, _after in
        select s.at, s.before, s.utc_offset
        from (
            select w.at, o.utc_offset, lag(o.utc_offset) over (order by w.at) as before
            from generate_series(0, 2524608000, _week) w (at)
            cross join lateral tocsin.utc_offset(_zone, w.at) o (utc_offset)
        ) s
        where s.utc_offset <> s.before
        order by s.at
    loop
        _low := _high - _week;
        while _high - _low > 1 loop
            _middle := (_low + _high) / 2;
            if tocsin.utc_offset(_zone, _middle) = _before then
                _low := _middle;
            else
                _high := _middle;
            end if;
        end loop;
        starts := starts || _high;
        utc_offsets := utc_offsets || _after;
    end loop;
end
$$;

-- A zone's offset from UTC at a time (seconds since 1970), in seconds.
create or replace function tocsin.utc_offset(_zone text, _at bigint) returns integer
language sql stable
as $$
    select extract(epoch from (to_timestamp(_at) at time zone _zone) - (to_timestamp(_at) at time zone 'UTC'))::integer
$$;

-- A time as it is written in JSON: RFC 3339 in UTC, with Z.
create or replace function tocsin.json_time(_at timestamptz) returns text
language sql stable
as $$
    select to_char(_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;
