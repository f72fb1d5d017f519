-- The fan-out: an event's notifications, and with each the change of the badge, the digest's item and the deliveries.

-- Makes the notifications of an event for these people; unknown ones are left out. `_because` goes with `_people`: why each
-- of them is notified, for the followers of a topic, else null. Returns how many people were notified.
create or replace function tocsin.fan_out(
    _event_id bigint,
    _type tocsin.event_type,
    _people text[],
    _because text[],
    _now timestamptz,
    _subject text
) returns integer
language plpgsql
as $$
declare
    _notified integer;
begin
    _notified := tocsin.fan_out_rows(_event_id, _type, _people, _because, _now, _subject);
    if _type.reports_created then
        perform tocsin.report_created(_event_id, _people);
    end if;
    return _notified;
end
$$;

-- The usual event, for one person at once: stores the event too, and wakes the leader. One look-up of all that decides for
-- the person, and plain inserts (docs/adr/0027-notify-short-path.md). Returns the event's id; null, with nothing stored, where
-- tocsin.create_event() has to do it: the person is unknown, has quiet hours or a further channel, or the event type is unknown,
-- retired or has delays.
create or replace function tocsin.create_event_for_one(
    _event_id bigint,
    _caller text,
    _event_type text,
    _person text,
    _title text,
    _body text,
    _body_html text,
    _action_url text,
    _metadata jsonb,
    _initiator text,
    _now timestamptz,
    _subject text
) returns bigint
language plpgsql
as $$
declare
    _chose boolean;
    _needs_fan_out boolean;
    _no_address boolean;
    _suppressed boolean;
    _devices bigint[];
    _decisions jsonb;
    _priority smallint;
    _expires_at timestamptz;
    _reports_created boolean;
    _notification_id bigint;
    _in_inbox boolean;
    _by_email boolean;
    _by_push boolean;
    _by_digest boolean;
begin
    select
        r.chose,
        r.needs_fan_out,
        r.no_address,
        r.suppressed,
        r.devices,
        t.default_decisions -> (
            case when r.no_address then 4 else 0 end
            + case when r.suppressed then 2 else 0 end
            + case when r.devices[1] is null then 1 else 0 end
        ),
        t.priority,
        _now + t.time_to_live,
        t.reports_created
    into _chose, _needs_fan_out, _no_address, _suppressed, _devices, _decisions, _priority, _expires_at, _reports_created
    from tocsin.event_type t
    cross join (
        select
            r.email is null as no_address,
            exists (select from tocsin.suppression s where s.key = r.address_key) as suppressed,
            array(select d.device_id from tocsin.device d where d.recipient_id = _person and d.disabled_at is null) as devices,
            exists (select from tocsin.preference p where p.recipient_id = _person)
                or exists (select from tocsin.digest_preference g where g.recipient_id = _person) as chose,
            r.further_channels <> '{}' or exists (select from tocsin.quiet_hours q where q.recipient_id = _person) as needs_fan_out
        from tocsin.recipient r
        where r.recipient_id = _person
        -- else each look-up would be repeated wherever its result is used
        offset 0
    ) r
    where t.event_type = _event_type
        and t.retired_at is null
        and t.delays = '{}';
    if _needs_fan_out is distinct from false then
        return null;
    elsif _chose then
        select coalesce(
            case
                when coalesce(o.recipient_id, g.recipient_id) is not null then
                    tocsin.decide(t, tocsin.make_facts(
                        o.overrides, _no_address, _suppressed, _devices[1] is null, g.recipient_id is not null, null, null
                    ))
            end,
            _decisions
        )
        into _decisions
        from tocsin.event_type t
        left join tocsin.overrides_of(t, array[_person]) o on true
        left join tocsin.digest_takers(t, array[_person]) g on true
        where t.event_type = _event_type;
    end if;
    insert into tocsin.notification (event_id, recipient_id, event_type, subject, created_at, in_inbox, decisions)
    values (_event_id, _person, _event_type, _subject, _now, _decisions @> '{"in_app": ["on"]}', _decisions)
    returning
        notification_id,
        in_inbox,
        decisions @> '{"email": ["on"]}',
        decisions @> '{"push": ["on"]}',
        decisions @> '{"email": ["digest"]}'
    into _notification_id, _in_inbox, _by_email, _by_push, _by_digest;
    if _in_inbox then
        insert into tocsin.unread_delta (recipient_id, n)
        values (_person, 1);
    end if;
    if _by_digest then
        insert into tocsin.digest_item (notification_id, recipient_id)
        values (_notification_id, _person);
    end if;
    if _by_email or _by_push then
        -- a null device stands for the email
        -- states: new -> queued
        insert into tocsin.delivery (notification_id, event_id, recipient_id, channel, device_id, created_at)
        select _notification_id, _event_id, _person, case when d.device_id is null then 'email' else 'push' end, d.device_id, _now
        from unnest(case when _by_email then array[null::bigint] end || case when _by_push then _devices end) d (device_id);
        insert into tocsin.event_queue (event_id, channel, priority)
        select _event_id, c.channel, _priority
        from (values ('email', _by_email), ('push', _by_push)) c (channel, is_on)
        where c.is_on;
    end if;
    insert into tocsin.event (
        event_id, event_type, title, body, body_html, action_url, metadata, initiator, caller, created_at, fanned_out_at, expires_at,
        subject, traceparent
    )
    values (
        _event_id, _event_type, _title, _body, _body_html, _action_url, _metadata, _initiator, _caller, _now, _now, _expires_at,
        _subject, tocsin.traceparent()
    );
    if _reports_created then
        perform tocsin.report('notification.created', null, array[_notification_id]);
    end if;
    if tocsin.leader_is_idle() then
        perform tocsin.wake(array[_person]);
    end if;
    return _event_id;
end
$$;

-- One statement for any number of people, with one plan for all calls, since planning takes several times as long as the
-- statement for a few. Ids are taken first, so that each row is made once and no insert has to return what it stored.
create or replace function tocsin.fan_out_rows(
    _event_id bigint,
    _type tocsin.event_type,
    _people text[],
    _because text[],
    _now timestamptz,
    _subject text
) returns integer
language plpgsql
as $$
declare
    _notified integer;
begin
    with person as materialized (
        select f.recipient_id, f.because, f.facts
        from tocsin.recipient_facts(_type, _people, _because) f
    ),
    decided as materialized (
        select
            d.facts,
            d.decisions,
            d.decisions @> '{"in_app": ["on"]}' as in_inbox,
            d.decisions @> '{"email": ["on"]}' as by_email,
            d.decisions @> '{"push": ["on"]}' as by_push,
            d.decisions @> '{"email": ["digest"]}' as by_digest,
            -- null for most
            case when d.facts ? 'further' then tocsin.further_channels_on(d.decisions) end as further
        from (
            select p.facts, tocsin.decide(_type, p.facts) as decisions
            from (select distinct p.facts from person p) p
            -- else each of the columns above would decide again
            offset 0
        ) d
    ),
    notified as materialized (
        select
            nextval('tocsin.notification_notification_id_seq') as notification_id,
            p.recipient_id, p.because, d.decisions, d.in_inbox, d.by_email, d.by_push, d.by_digest, d.further
        from person p
        join decided d using (facts)
    ),
    stored as (
        insert into tocsin.notification (
            notification_id, event_id, recipient_id, event_type, subject, created_at, in_inbox, decisions, because
        )
        overriding system value
        select t.notification_id, _event_id, t.recipient_id, _type.event_type, _subject, _now, t.in_inbox, t.decisions, t.because
        from notified t
    ),
    unread as (
        insert into tocsin.unread_delta (recipient_id, n)
        select t.recipient_id, 1
        from notified t
        where t.in_inbox
    ),
    digest as (
        insert into tocsin.digest_item (notification_id, recipient_id)
        select t.notification_id, t.recipient_id
        from notified t
        where t.by_digest
    ),
    message as (
        select t.notification_id, t.recipient_id, 'email' as channel, null::bigint as device_id, null::bigint as target_id
        from notified t
        where t.by_email
        union all
        select t.notification_id, t.recipient_id, 'push', d.device_id, null
        from notified t
        cross join lateral (
            select v.device_id
            from tocsin.device v
            where v.recipient_id = t.recipient_id
                and v.provider <> 'web_push'
                and v.disabled_at is null
            offset 0
        ) d
        where t.by_push
        union all
        select t.notification_id, t.recipient_id, f.channel, f.device_id, f.target_id
        from notified t
        cross join lateral tocsin.further_messages(t.recipient_id, t.further) f
        where t.further is not null
    ),
    queued as (
        -- states: new -> queued | deferred
        insert into tocsin.delivery (
            notification_id, event_id, recipient_id, channel, device_id, target_id, created_at, state, due_at, reason
        )
        select
            w.notification_id, _event_id, w.recipient_id, w.channel, w.device_id, w.target_id, _now,
            case when h.due_at is null then 'queued' else 'deferred' end::tocsin.delivery_state,
            h.due_at,
            case when h.due_at is not null then case when q.recipient_id is null then 'delayed' else 'quiet_hours' end end
        from message w
        left join (
            select h.recipient_id, h as hours
            from tocsin.quiet_hours h
            where h.recipient_id = any (_people)
                and _type.priority < 2
            offset 0
        ) q on q.recipient_id = w.recipient_id and w.target_id is null
        cross join lateral (
            select nullif(
                greatest(
                    _now + coalesce((_type.delays ->> tocsin.timing_channel(w.channel))::interval, '0'),
                    case when q.recipient_id is not null then tocsin.quiet_until(q.hours, _now) end
                ),
                _now
            ) as due_at
        ) h
        returning channel, due_at
    ),
    queue as (
        insert into tocsin.event_queue (event_id, channel, priority)
        select distinct _event_id, q.channel, _type.priority
        from queued q
        where q.due_at is null
    )
    select count(*)
    into _notified
    from notified t
    where coalesce(t.because, '') not in ('muted', 'not_mentioned');
    return _notified;
end
$$;

-- The channel whose delay and whose skip_if_read a type has for this one: a browser's push is timed as a phone's; null for a webhook
-- and a chat, which are never delayed.
create or replace function tocsin.timing_channel(_channel text) returns text
language sql immutable
as $$
    select case when _channel = 'web_push' then 'push' when _channel not in ('webhook', 'chat') then _channel end
$$;

-- The further channels that were decided to be on.
create or replace function tocsin.further_channels_on(_decisions jsonb) returns text[]
language sql stable
as $$
    select array(
        select c.channel
        from tocsin.channel c
        where c.further
            and _decisions -> c.channel ->> 0 = 'on'
    )
$$;

-- The browsers and targets of a person on these channels.
create or replace function tocsin.further_messages(_recipient_id text, _channels text[])
returns table (channel text, device_id bigint, target_id bigint)
language sql stable
as $$
    select 'web_push', v.device_id, null::bigint
    from tocsin.device v
    where v.recipient_id = _recipient_id
        and v.provider = 'web_push'
        and v.disabled_at is null
        and 'web_push' = any (_channels)
    union all
    select g.channel, null, g.target_id
    from tocsin.target g
    where g.recipient_id = _recipient_id
        and g.disabled_at is null
        and g.channel = any (_channels)
$$;
