-- The limits of messages to one person: the throttle of an event type, and the cap of an hour on each channel. What is beyond
-- one is deferred (`throttled`) and belongs to a joined message: a burst, of which the first delivery takes the others along
-- when it is due (docs/adr/0075-limits.md).

-- The messages that a person got within a time on one channel (pushes: on one device), and those that other claims are
-- sending, as far as the limits were applied to these. Read from the newest notification back; nothing that is older than the time to live is sent.
create or replace function tocsin.recent_messages(
    _recipient_id text,
    _channel text,
    _device_id bigint,
    _claim uuid,
    _within interval
) returns table (message bigint, event_type text, subject text, at timestamptz)
language plpgsql stable
as $$
#variable_conflict use_column
declare
    _now timestamptz := clock_timestamp();
    _each record;
begin
    for _each in
        select
            n.created_at,
            n.event_type,
            n.subject,
            coalesce(d.burst_id, d.delivery_id) as message,
            coalesce(d.settled_at, _now) as at
        from tocsin.notification n
        left join tocsin.delivery d
            on d.notification_id = n.notification_id
            and d.channel = _channel
            and d.device_id is not distinct from _device_id
            and (
                d.state = 'sent' and d.settled_at > _now - _within
                or d.state = 'sending'
                    and d.claim <> _claim
                    and exists (
                        select
                        from tocsin.lease l
                        where l.claim = d.claim
                            and l.limited
                    )
            )
        where n.recipient_id = _recipient_id
        order by n.xid desc
    loop
        exit when _each.created_at < _now - _within - interval '3 days';
        if _each.message is not null then
            message := _each.message;
            event_type := _each.event_type;
            subject := _each.subject;
            at := _each.at;
            return next;
        end if;
    end loop;
end
$$;

-- Decides which deliveries of a claim are sent, and defers the others. `_withheld`: those of them that the claim itself
-- withholds. A person is locked meanwhile, so that two workers decide one after the other.
-- Returns what became of each: `held` is null where it is sent (as part of the message `burst_id`, if not null); else
-- throttled, or lost where the claim no longer has it. `counted`: it was not in `_delivery_ids`, and goes with the others of
-- its burst; `held` is then the reason for which it is withheld.
create or replace function tocsin.throttle(_claim uuid, _delivery_ids bigint[], _withheld bigint[], _cap integer)
returns table (delivery_id bigint, burst_id bigint, counted boolean, held text, caller text)
language plpgsql
as $$
#variable_conflict use_column
declare
    _lost bigint[];
    _group record;
begin
    perform tocsin.lock_people(array(
        select distinct d.recipient_id
        from tocsin.delivery d
        where d.delivery_id = any (_delivery_ids)
            and d.recipient_id is not null
    ));
    _lost := array(
        select i
        from unnest(_delivery_ids) i
        where not exists (
            select
            from tocsin.delivery d
            where d.delivery_id = i
                and d.claim = _claim
                and d.state = 'sending'
        )
    );
    for _group in
        select d.recipient_id, d.channel, d.device_id, array_agg(d.delivery_id order by d.delivery_id) as ids
        from tocsin.delivery d
        where d.delivery_id = any (_delivery_ids)
            and d.delivery_id <> all (_withheld)
            and d.delivery_id <> all (_lost)
        group by d.recipient_id, d.channel, d.device_id
    loop
        return query
            select t.delivery_id, t.burst_id, t.counted, t.held, t.caller
            from tocsin.throttle_one(
                _claim, _delivery_ids, _group.ids, _cap, _group.recipient_id, _group.channel, _group.device_id
            ) t;
    end loop;
    update tocsin.lease l
    set limited = true
    where l.claim = _claim;
    return query
        select i, null::bigint, false, 'lost', null
        from unnest(_lost) i;
end
$$;

-- Locks people against other workers until the transaction ends, by rows that only the service can lock: any login may hold
-- an advisory lock, and an app's open transaction the recipient's row.
create or replace function tocsin.lock_people(_people text[]) returns void
language plpgsql
as $$
declare
    _slots integer[] := array(select distinct hashtext(p) & 255 from unnest(_people) p);
begin
    insert into tocsin.throttle_lock (slot)
    select s
    from unnest(_slots) s
    where not exists (select from tocsin.throttle_lock l where l.slot = s)
    order by s
    on conflict do nothing;
    perform l.slot
    from tocsin.throttle_lock l
    where l.slot = any (_slots)
    order by l.slot
    for update;
end
$$;

-- The same for the deliveries of one person on one channel, and one device: first by the throttles of their types, then by the
-- cap.
create or replace function tocsin.throttle_one(
    _claim uuid,
    _delivery_ids bigint[],
    _mine bigint[],
    _cap integer,
    _recipient_id text,
    _channel text,
    _device_id bigint
) returns table (delivery_id bigint, burst_id bigint, counted boolean, held text, caller text)
language plpgsql
as $$
#variable_conflict use_column
declare
    _type record;
    _over record;
begin
    for _type in
        select
            n.event_type,
            n.subject,
            t.throttle_within as within,
            t.throttle_most * tocsin.exemption(t, _channel) as most,
            array_agg(d.delivery_id) as ids
        from tocsin.delivery d
        join tocsin.notification n using (notification_id)
        join tocsin.event_type t using (event_type)
        where d.delivery_id = any (_mine)
            and t.throttle_most is not null
            and not tocsin.is_outcome_unknown(d)
        group by t.event_type, n.event_type, n.subject
    loop
        with recent as (
            select max(r.at) as at
            from tocsin.recent_messages(_recipient_id, _channel, _device_id, _claim, _type.within) r
            where r.event_type = _type.event_type
                and r.subject is not distinct from _type.subject
            group by r.message
            order by 1 desc
            limit _type.most
        ),
        placed as (
            select d.delivery_id, dense_rank() over (order by coalesce(d.burst_id, d.delivery_id)) as place
            from tocsin.delivery d
            where d.delivery_id = any (_type.ids)
        )
        select
            array_agg(p.delivery_id) as ids,
            coalesce((select min(r.at) from recent r), clock_timestamp()) + _type.within as due_at
        into _over
        from placed p
        where p.place > _type.most - (select count(*) from recent);
        if _over.ids is not null then
            return query
                select j.delivery_id, j.burst_id, false, 'throttled', j.caller
                from tocsin.join_later(
                    _claim, _over.ids, _recipient_id, _channel, _device_id, _type.event_type, _type.subject, _over.due_at
                ) j;
            _mine := array(
                select i
                from unnest(_mine) i
                where i <> all (_over.ids)
            );
        end if;
    end loop;
    return query
        select c.delivery_id, c.burst_id, c.counted, c.held, c.caller
        from tocsin.throttle_by_cap(_claim, _delivery_ids, _mine, _cap, _recipient_id, _channel, _device_id) c;
end
$$;

-- The same by the cap alone (0: none). A message of several deliveries counts one.
create or replace function tocsin.throttle_by_cap(
    _claim uuid,
    _delivery_ids bigint[],
    _mine bigint[],
    _cap integer,
    _recipient_id text,
    _channel text,
    _device_id bigint
) returns table (delivery_id bigint, burst_id bigint, counted boolean, held text, caller text)
language plpgsql
as $$
#variable_conflict use_column
declare
    _now timestamptz := clock_timestamp();
    _quiet_until timestamptz;
    _joined_at timestamptz; -- when the message is due that others wait for
    _sent timestamptz[]; -- the messages of the last hour, the newest first
    _message record;
    _due_at timestamptz;
begin
    select tocsin.quiet_until(q, _now) into _quiet_until
    from tocsin.quiet_hours q
    where q.recipient_id = _recipient_id;
    select j.due_at into _joined_at
    from tocsin.joined_message j
    where j.recipient_id = _recipient_id
        and j.channel = _channel
        and j.device_id is not distinct from _device_id
        and j.event_type is null
        and j.due_at > _now + tocsin.joined_before();
    for _message in
        select
            d.burst_id,
            array_agg(d.delivery_id) as ids,
            max(tocsin.exemption(t, _channel)) as exemption,
            -- it waited for this, or was tried before
            d.burst_id is not null and bool_or(d.reason not in ('quiet_hours', 'delayed')) is true as again,
            bool_or(tocsin.is_outcome_unknown(d)) as unknown
        from tocsin.delivery d
        join tocsin.event e using (event_id)
        join tocsin.event_type t using (event_type)
        where d.delivery_id = any (_mine)
        group by d.burst_id, coalesce(d.burst_id, d.delivery_id)
        order by 3 desc, min(d.delivery_id)
    loop
        _due_at := null;
        if _message.unknown then
            null; -- it is repeated under its Message-ID
        elsif _quiet_until is not null and _message.again then
            _due_at := _quiet_until;
        elsif _quiet_until is not null and _message.exemption = 1 then
            continue; -- the presend check withholds it
        elsif _joined_at is not null and _message.exemption = 1 then
            _due_at := _joined_at;
        elsif _cap > 0 then
            _sent := coalesce(_sent, tocsin.sent_within_an_hour(_recipient_id, _channel, _device_id, _claim));
            _due_at := _sent[_cap * _message.exemption] + interval '1 hour';
            _sent := _now || _sent;
        end if;
        if _due_at is not null then
            return query
                select j.delivery_id, j.burst_id, false, 'throttled', j.caller
                from tocsin.join_later(
                    _claim,
                    _message.ids || tocsin.others_of_burst(_claim, _message.burst_id, _delivery_ids),
                    _recipient_id, _channel, _device_id, null, null, _due_at
                ) j
                where j.delivery_id = any (_delivery_ids);
        elsif _message.burst_id is not null then
            return query
                select i, _message.burst_id, false, null::text, null::text
                from unnest(_message.ids) i
                union all
                select t.delivery_id, _message.burst_id, true, t.withheld, null
                from tocsin.take_others_of_burst(_claim, _message.burst_id, _delivery_ids) t;
        end if;
    end loop;
end
$$;

-- By how much a limit is larger for an event type: ten times for mandatory and urgent ones.
create or replace function tocsin.exemption(_type tocsin.event_type, _channel text) returns integer
language sql immutable
as $$
    select case when _type.priority = 2 or _channel = any (_type.mandatory_channels) then 10 else 1 end
$$;

-- Whether the provider may have a delivery already: it is then repeated under the same id, and never joined with others.
create or replace function tocsin.is_outcome_unknown(_delivery tocsin.delivery) returns boolean
language sql stable
as $$
    select _delivery.attempts > 1
        and exists (
            select
            from tocsin.attempt a
            where a.delivery_id = _delivery.delivery_id
                and a.outcome = 'unknown'
        )
$$;

-- The times of the messages of the last hour, the newest first.
create or replace function tocsin.sent_within_an_hour(
    _recipient_id text,
    _channel text,
    _device_id bigint,
    _claim uuid
) returns timestamptz[]
language sql stable
as $$
    select array(
        select max(r.at)
        from tocsin.recent_messages(_recipient_id, _channel, _device_id, _claim, '1 hour') r
        group by r.message
        order by 1 desc
    )
$$;

-- So long before a joined message is due, no more deliveries are added to it: it may be dispatched already.
create or replace function tocsin.joined_before() returns interval
language sql immutable
as $$
    select interval '5 seconds'
$$;

-- Defers deliveries until `_due_at`, or until the message is due that waits already for the same limit, and until the person's
-- quiet hours are over. `_event_type` and `_subject`: those of a throttle; null for the cap. Does nothing for a person who
-- was erased.
create or replace function tocsin.join_later(
    _claim uuid,
    _ids bigint[],
    _recipient_id text,
    _channel text,
    _device_id bigint,
    _event_type text,
    _subject text,
    _due_at timestamptz
) returns table (delivery_id bigint, burst_id bigint, caller text)
language plpgsql
as $$
#variable_conflict use_column
declare
    _burst_id bigint;
    _full boolean;
begin
    insert into tocsin.joined_message as j (
        recipient_id, channel, device_id, event_type, subject, burst_id, due_at, deliveries
    )
    select
        r.recipient_id,
        _channel,
        _device_id,
        _event_type,
        _subject,
        (select min(i) from unnest(_ids) i),
        coalesce(tocsin.quiet_until(q, _due_at), _due_at),
        cardinality(_ids)
    from tocsin.recipient r
    left join tocsin.quiet_hours q using (recipient_id)
    where r.recipient_id = _recipient_id
    on conflict (recipient_id, channel, device_id, event_type, subject) do update
    set burst_id = case when j.due_at > clock_timestamp() + tocsin.joined_before() then j.burst_id else excluded.burst_id end,
        due_at = case when j.due_at > clock_timestamp() + tocsin.joined_before() then j.due_at else excluded.due_at end,
        deliveries = excluded.deliveries
            + case when j.due_at > clock_timestamp() + tocsin.joined_before() then j.deliveries else 0 end
    returning j.burst_id, j.due_at into _burst_id, _due_at;
    return query
        -- states: sending | queued | deferred -> deferred
        update tocsin.delivery d
        set state = 'deferred',
            reason = 'throttled',
            claim = null,
            attempts = d.attempts - case when d.state = 'sending' then 1 else 0 end,
            due_at = _due_at,
            burst_id = _burst_id
        from tocsin.event e
        where d.delivery_id = any (_ids)
            and _burst_id is not null
            and e.event_id = d.event_id
        returning d.delivery_id, d.burst_id, e.caller;
end
$$;

-- The deliveries of a burst that no worker has, apart from some; locked.
create or replace function tocsin.others_of_burst(_claim uuid, _burst_id bigint, _apart_from bigint[]) returns bigint[]
language sql
as $$
    select coalesce(array_agg(o.delivery_id), '{}')
    from (
        select d.delivery_id
        from tocsin.delivery d
        where d.burst_id = _burst_id
            and d.delivery_id <> all (_apart_from)
            and (d.state in ('queued', 'deferred') or d.state = 'sending' and d.claim = _claim)
        for update skip locked
    ) o
$$;

-- Claims them too; returns each, with the reason for which it is withheld.
create or replace function tocsin.take_others_of_burst(_claim uuid, _burst_id bigint, _apart_from bigint[])
returns table (delivery_id bigint, withheld text)
language plpgsql
as $$
#variable_conflict use_column
declare
    _others bigint[] := tocsin.others_of_burst(_claim, _burst_id, _apart_from);
begin
    if _others = '{}' then
        return;
    end if;
    -- states: queued | deferred -> sending
    update tocsin.delivery d
    set state = 'sending', claim = _claim, attempts = d.attempts + 1, due_at = null
    where d.delivery_id = any (_others)
        and d.state <> 'sending';
    update tocsin.lease l
    set delivery_ids = l.delivery_ids || _others
    where l.claim = _claim;
    return query
        select s.delivery_id, nullif(s.withheld, 'quiet_hours')
        from (
            select i as delivery_id, (tocsin.delivery_snapshot(i)).withheld as withheld
            from unnest(_others) i
        ) s;
end
$$;
