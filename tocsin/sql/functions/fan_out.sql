-- Telling an event to people: notifications, badges, deliveries and their event queues.

-- Answers how many people were told; unknown ones are left out. `_because` goes with `_people`: why each is among them,
-- where that is a topic's doing, else null.
create or replace function tocsin.fan_out(
    _event_id bigint,
    _type tocsin.event_type,
    _people text[],
    _because text[],
    _now timestamptz
) returns integer
language plpgsql
as $$
begin
    if cardinality(_people) < 200 then
        return tocsin.fan_out_to_few(_event_id, _type, _people, _because, _now);
    else
        return tocsin.fan_out_to_many(_event_id, _type, _people, _because, _now);
    end if;
end
$$;

-- The same for one person, since most calls are for one: a look at what there is of them, and plain inserts. Answers when
-- the event is over; null where they are not told, or by tell() only: unknown, in quiet hours, or of an event type that
-- is retired or has delays.
create or replace function tocsin.fan_out_to_one(_event_id bigint, _event_type text, _person text, _now timestamptz)
returns timestamptz
language plpgsql
as $$
declare
    _chose boolean;
    _has_quiet_hours boolean;
    _devices bigint[];
    _decisions jsonb;
    _priority smallint;
    _expires_at timestamptz;
    _notification_id bigint;
    _in_inbox boolean;
    _by_email boolean;
    _by_push boolean;
    _by_digest boolean;
begin
    select
        r.chose,
        r.has_quiet_hours,
        r.devices,
        t.default_decisions -> (
            case when r.no_address then 4 else 0 end
            + case when r.suppressed then 2 else 0 end
            + case when r.devices[1] is null then 1 else 0 end
        ),
        t.priority,
        _now + t.time_to_live
    into _chose, _has_quiet_hours, _devices, _decisions, _priority, _expires_at
    from tocsin.event_type t
    cross join (
        select
            r.email is null as no_address,
            exists (select from tocsin.suppression s where s.key = r.address_key) as suppressed,
            array(select d.device_id from tocsin.device d where d.recipient_id = _person and d.disabled_at is null) as devices,
            exists (select from tocsin.preference p where p.recipient_id = _person)
                or exists (select from tocsin.digest_preference g where g.recipient_id = _person) as chose,
            exists (select from tocsin.quiet_hours q where q.recipient_id = _person) as has_quiet_hours
        from tocsin.recipient r
        where r.recipient_id = _person
        -- or each look would be repeated where it is used
        offset 0
    ) r
    where t.event_type = _event_type
        and t.retired_at is null
        and t.delays = '{}';
    if _has_quiet_hours is distinct from false then
        return null;
    elsif _chose then
        select
            tocsin.decide(t, s.facts),
            array(select d.device_id from tocsin.device d where d.recipient_id = _person and d.disabled_at is null)
        into _decisions, _devices
        from tocsin.event_type t
        cross join lateral tocsin.recipient_facts(t, array[_person], null) s
        where t.event_type = _event_type;
        if not found then
            -- erased a moment ago
            return null;
        end if;
    end if;
    insert into tocsin.notification (event_id, recipient_id, event_type, created_at, in_inbox, decisions)
    values (_event_id, _person, _event_type, _now, _decisions @> '{"in_app": ["on"]}', _decisions)
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
        -- no device: by email
        -- states: new -> queued
        insert into tocsin.delivery (notification_id, event_id, recipient_id, channel, device_id, created_at)
        select _notification_id, _event_id, _person, case when d.device_id is null then 'email' else 'push' end, d.device_id, _now
        from unnest(case when _by_email then array[null::bigint] end || case when _by_push then _devices end) d (device_id);
        insert into tocsin.event_queue (event_id, channel, priority)
        select _event_id, c.channel, _priority
        from (values ('email', _by_email), ('push', _by_push)) c (channel, wanted)
        where c.wanted;
    end if;
    return _expires_at;
end
$$;

-- By indexes, with one plan for all calls: to plan anew would take several times what it takes to tell a few.
create or replace function tocsin.fan_out_to_few(
    _event_id bigint,
    _type tocsin.event_type,
    _people text[],
    _because text[],
    _now timestamptz
) returns integer
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
begin
    return tocsin.fan_out_rows(_event_id, _type, _people, _because, _now);
end
$$;

-- With a plan for just so many: by indexes still, or whole tables at once.
create or replace function tocsin.fan_out_to_many(
    _event_id bigint,
    _type tocsin.event_type,
    _people text[],
    _because text[],
    _now timestamptz
) returns integer
language plpgsql
set plan_cache_mode = force_custom_plan
-- these tables are in memory, also where most of the database is not
set seq_page_cost = 0.1
set random_page_cost = 0.1
set work_mem = '64MB'
set jit = off
as $$
begin
    return tocsin.fan_out_rows(_event_id, _type, _people, _because, _now);
end
$$;

-- The fan-out: one statement for any number of people. Ids are taken first, so that each row is made once and no insert
-- has to hand on what it stored.
create or replace function tocsin.fan_out_rows(
    _event_id bigint,
    _type tocsin.event_type,
    _people text[],
    _because text[],
    _now timestamptz
) returns integer
language plpgsql
as $$
declare
    _told integer;
begin
    with person as materialized (
        select s.recipient_id, s.because, s.facts
        from tocsin.recipient_facts(_type, _people, _because) s
    ),
    decided as materialized (
        select
            d.facts,
            d.decisions,
            d.decisions -> 'in_app' ->> 0 = 'on' as in_inbox,
            d.decisions -> 'email' ->> 0 = 'on' as by_email,
            d.decisions -> 'push' ->> 0 = 'on' as by_push,
            d.decisions -> 'email' ->> 1 = 'digest' as by_digest
        from (
            select p.facts, tocsin.decide(_type, p.facts) as decisions
            from (select distinct p.facts from person p) p
            -- or each of the columns above would decide anew
            offset 0
        ) d
    ),
    told as materialized (
        select
            nextval('tocsin.notification_notification_id_seq') as notification_id,
            p.recipient_id, p.because, d.decisions, d.in_inbox, d.by_email, d.by_push, d.by_digest
        from person p
        join decided d using (facts)
    ),
    kept as (
        insert into tocsin.notification (
            notification_id, event_id, recipient_id, event_type, created_at, in_inbox, decisions, because
        )
        overriding system value
        select t.notification_id, _event_id, t.recipient_id, _type.event_type, _now, t.in_inbox, t.decisions, t.because
        from told t
    ),
    unread as (
        insert into tocsin.unread_delta (recipient_id, n)
        select t.recipient_id, 1
        from told t
        where t.in_inbox
    ),
    waiting as (
        insert into tocsin.digest_item (notification_id, recipient_id)
        select t.notification_id, t.recipient_id
        from told t
        where t.by_digest
    ),
    wanted as (
        select t.notification_id, t.recipient_id, 'email' as channel, null as device_id
        from told t
        where t.by_email
        union all
        select t.notification_id, t.recipient_id, 'push', d.device_id
        from told t
        join tocsin.device d using (recipient_id)
        where t.by_push
            and d.disabled_at is null
    ),
    queued as (
        -- states: new -> queued | deferred
        insert into tocsin.delivery (
            notification_id, event_id, recipient_id, channel, device_id, created_at, state, due_at, reason
        )
        select
            w.notification_id, _event_id, w.recipient_id, w.channel, w.device_id, _now,
            case when h.due_at is null then 'queued' else 'deferred' end::tocsin.delivery_state,
            h.due_at,
            case when h.due_at is not null then case when q.recipient_id is null then 'delayed' else 'quiet_hours' end end
        from wanted w
        left join tocsin.quiet_hours q on q.recipient_id = w.recipient_id and _type.priority < 2
        cross join lateral (
            select nullif(
                greatest(
                    _now + coalesce((_type.delays ->> w.channel)::interval, '0'),
                    case when q.recipient_id is not null then tocsin.quiet_until(q, _now) end
                ),
                _now
            ) as due_at
        ) h
        returning channel, due_at
    ),
    lane as (
        insert into tocsin.event_queue (event_id, channel, priority)
        select distinct _event_id, q.channel, _type.priority
        from queued q
        where q.due_at is null
    )
    select count(*)
    into _told
    from told t
    where coalesce(t.because, '') not in ('muted', 'not_mentioned');
    return _told;
end
$$;
