-- Fan-outs that are too large for one transaction: the leader writes them after the commit, slice by slice.
--
-- A slice is one short transaction: it finds the next people in the order of their ids, writes what the fan-out of a small event
-- writes for them, and records how far it came. So a fan-out goes on where it was after a crash of any process, each person is
-- notified once, and no transaction grows with the crowd. A cancel() that commits between two slices ends it
-- (docs/adr/0091-large-fan-outs.md).

-- How many followers of a topic are notified in the transaction of the call; of a topic with more, the leader notifies all.
create or replace function tocsin.fan_out_at_once() returns integer
language sql immutable
as $$
    select 100000
$$;

-- Leaves the fan-out of an event to the leader. It is for those who followed the topic at `_as_of`.
create or replace function tocsin.begin_fan_out(_event tocsin.event, _as_of timestamptz) returns void
language sql
as $$
    insert into tocsin.running_fan_out (event_id, as_of, total)
    values (
        _event.event_id,
        _as_of,
        case
            when _event.topic is null then cardinality(_event.recipients)
            else (select count(*) from tocsin.subscription s where s.topic = _event.topic)
        end
    )
$$;

-- Writes the next slice of the fan-out that waits longest for one, for up to `_slice` people. `people`: how many it handled;
-- `running`: whether any fan-out is left; `failed`: the event whose slice failed, and `error` its SQLSTATE. That one is tried again
-- in ten seconds, so that it keeps nothing else waiting.
create or replace function tocsin.advance_fan_outs(
    _slice integer,
    out people integer,
    out running boolean,
    out failed bigint,
    out error text
)
language plpgsql
as $$
declare
    _fan_out tocsin.running_fan_out;
begin
    people := 0;
    select f.* into _fan_out
    from tocsin.running_fan_out f
    where f.turn_at <= clock_timestamp()
    order by f.turn_at
    limit 1
    for update skip locked;
    if found then
        begin
            people := tocsin.advance_fan_out(_fan_out, _slice);
        exception when others then
            failed := _fan_out.event_id;
            error := sqlstate;
            update tocsin.running_fan_out f
            set turn_at = clock_timestamp() + interval '10 seconds'
            where f.event_id = failed;
        end;
    end if;
    running := exists (select from tocsin.running_fan_out);
end
$$;

-- Writes the next slice of one, whose row is locked; returns how many people it handled.
create or replace function tocsin.advance_fan_out(_fan_out tocsin.running_fan_out, _slice integer) returns integer
language plpgsql
as $$
declare
    _event tocsin.event;
    _type tocsin.event_type;
    _people text[];
    _because text[];
    _notified integer := 0;
begin
    -- one that is locked by an open cancel() has its turn later
    select e.* into _event
    from tocsin.event e
    where e.event_id = _fan_out.event_id
    for update skip locked;
    if _event.cancelled_at is not null then
        -- a cancel() whose snapshot is older than the last slice did not see that slice
        perform tocsin.stop_cancelled(array[_event.event_id]);
        delete from tocsin.running_fan_out f where f.event_id = _fan_out.event_id;
        return 0;
    elsif _event.topic is not null then
        select array_agg(n.recipient_id), array_agg(n.because)
        into _people, _because
        from tocsin.next_followers(_event, _fan_out.after, _fan_out.as_of, _slice) n;
    elsif _event.event_id is not null then
        _people := tocsin.next_recipients(_event, _fan_out.after, _slice);
    end if;
    if cardinality(_people) > 0 then
        select t.* into _type
        from tocsin.event_type t
        where t.event_type = _event.event_type;
        _notified := tocsin.fan_out(_event.event_id, _type, _people, _because, clock_timestamp(), _event.subject);
        if _event.replaces then
            perform tocsin.replace_in_slice(_event.event_id, _people);
        end if;
        perform tocsin.wake(_people);
    end if;
    update tocsin.running_fan_out f
    set after = coalesce((select max(u.id) from unnest(_people) u (id)), f.after),
        fanned_out = f.fanned_out + _notified,
        -- without those who are not notified: they muted the topic, or were erased
        total = f.total - (coalesce(cardinality(_people), 0) - _notified),
        turn_at = clock_timestamp()
    where f.event_id = _fan_out.event_id;
    if _event.event_id is not null and coalesce(cardinality(_people), 0) < _slice then
        update tocsin.event e
        set fanned_out_at = clock_timestamp(), recipients = null
        where e.event_id = _event.event_id;
        delete from tocsin.running_fan_out f where f.event_id = _event.event_id;
    end if;
    return coalesce(cardinality(_people), 0);
end
$$;

-- The next followers of an event's topic after a person's id, in the order of ids: those who followed it at `_as_of` and still do.
create or replace function tocsin.next_followers(_event tocsin.event, _after text, _as_of timestamptz, _limit integer)
returns table (recipient_id text, because text)
language sql stable
as $$
    select a.recipient_id, a.because
    from tocsin.topic_audience(_event) a
    where a.recipient_id > _after
        and a.followed_at <= _as_of
        and a.recipient_id is distinct from _event.initiator
    order by a.recipient_id
    limit _limit
$$;

-- The same of a scheduled event for a list of people.
create or replace function tocsin.next_recipients(_event tocsin.event, _after text, _limit integer) returns text[]
language sql stable
as $$
    select array(
        select u.id
        from unnest(_event.recipients) u (id)
        where u.id > _after
        order by u.id
        limit _limit
    )
$$;

-- Takes out what the notifications of these people replace; what open transactions hold is left to the leader.
create or replace function tocsin.replace_in_slice(_event_id bigint, _people text[]) returns void
language plpgsql
as $$
declare
    _ids bigint[] := array(
        select n.notification_id
        from tocsin.notification n
        where n.event_id = _event_id
            and n.recipient_id = any (_people)
    );
begin
    perform tocsin.replace_earlier(_event_id, _ids);
    insert into tocsin.pending_change (change, event_id, notification_ids)
    values ('replace', _event_id, _ids);
end
$$;
