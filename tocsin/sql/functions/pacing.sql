-- What all workers share of how fast they send (docs/adr/0092-shared-pacing.md). The times are of this database's clock.

-- Takes _count slots of a channel, _gap seconds apart, and returns in how many seconds the first one is. It may be an eighth of
-- a second ago, so that the time between two calls is not lost. A time far ahead is of a clock that was set back since.
create or replace function tocsin.take_slots(_channel text, _count integer, _gap float8) returns float8
language plpgsql
as $$
declare
    _now timestamptz := clock_timestamp();
    _least timestamptz := _now - interval '125 milliseconds';
    _most timestamptz := _now + interval '1 minute' + 1000 * _gap * interval '1 second';
    _block interval := _count * _gap * interval '1 second';
    _next timestamptz;
begin
    insert into tocsin.send_rate as r (channel, next_slot_at)
    values (_channel, _least + _block)
    on conflict (channel) do update
    set next_slot_at = case
            when r.next_slot_at between _least and _most then r.next_slot_at
            else _least
        end + _block
    returning r.next_slot_at into _next;
    return extract(epoch from _next - _block - clock_timestamp());
end
$$;

-- Stores a pause that a provider asked one worker for, and makes all workers read it at once.
create or replace function tocsin.hold_sending(_key text, _reason text, _seconds float8) returns void
language plpgsql
as $$
declare
    _now timestamptz := clock_timestamp();
begin
    delete from tocsin.send_hold h
    where h.until <= _now;
    insert into tocsin.send_hold as h (key, reason, until)
    values (_key, _reason, _now + _seconds * interval '1 second')
    on conflict (key) do update
    set reason = excluded.reason, until = excluded.until
    where h.until < excluded.until;
    perform pg_notify('tocsin_hold', '');
end
$$;

-- Returns the pauses that are not over, as an array of objects: key, reason, and for how many seconds.
create or replace function tocsin.send_holds() returns jsonb
language sql stable
as $$
    select coalesce(jsonb_agg(jsonb_build_object('key', h.key, 'reason', h.reason, 'seconds', extract(epoch from h.until - now))), '[]')
    from clock_timestamp() now
    join tocsin.send_hold h on h.until > now
$$;
