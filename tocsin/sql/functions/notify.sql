-- Notify: one event for each of its recipients, in the caller's own transaction.
--
-- It only ever inserts, so that it waits for nobody and nobody waits for it. The deliveries stay in their event's lane
-- until the dispatcher, which hears of them at commit by the bell, makes jobs of them.

create or replace function tocsin.notify(
    event_type text,
    recipients text[],
    title text,
    body text default '',
    action_url text default null,
    metadata jsonb default '{}',
    initiator text default null,
    idempotency_key text default null,
    body_html text default null,
    send_at timestamptz default null
) returns bigint
language sql
security definer
set search_path = pg_catalog, pg_temp
-- a caller's own setting would have the backslashes of our patterns read in another way
set standard_conforming_strings = on
as $$
    -- session_user: inside a SECURITY DEFINER function current_user is its owner. It is of type name, whose collation
    -- would spread to every comparison in there, and keep them all from using an index.
    select e.event_id
    from tocsin.emit(('role:' || session_user) collate "default", $1, $2, null, null, $3, $4, $5, $6, $7, $8, $9, $10) e
$$;

-- The same with the caller named, and for the followers of a topic or somebody known by an address alone; nobody but
-- the owner may execute it.
create or replace function tocsin.emit(
    _caller text,
    _event_type text,
    _recipients text[],
    _topic text,
    _email text,
    _title text,
    _body text,
    _action_url text,
    _metadata jsonb,
    _initiator text,
    _idempotency_key text,
    _body_html text,
    _send_at timestamptz,
    _subscribe_initiator boolean default false
) returns table (event_id bigint, notifications integer, replayed boolean)
language plpgsql
as $$
#variable_conflict use_column
declare
    _now timestamptz := clock_timestamp();
    _type tocsin.event_type;
    _people text[];
    _event tocsin.event;
    _earlier bigint;
begin
    _type := tocsin.known_event_type(_event_type);
    perform tocsin.check_content(_title, _body, _body_html, _action_url, _metadata, _initiator, _idempotency_key);
    if _send_at not between _now - interval '100 years' and _now + interval '10 years' then
        perform tocsin.refuse('send_at', 'send_at is not within the next ten years', 'Pass a time with its zone, or null to tell it now.');
    end if;
    perform tocsin.check_address(_email);
    if _topic is null and _email is null then
        if array_ndims(_recipients) > 1 then
            perform tocsin.refuse('recipients', 'recipients has more than one dimension', 'Pass a flat array of ids such as array[''alice''].');
        end if;
        if _recipients is null or array_position(_recipients, null) is not null then
            perform tocsin.refuse('recipients', 'recipients is null or has a null in it', 'Pass an array of ids such as array[''alice''].');
        end if;
        _people := array(
            select distinct u.id
            from unnest(_recipients) u (id)
            where u.id is distinct from _initiator
            order by u.id
        );
    end if;
    if _topic is not null then
        perform tocsin.check_topic(_topic);
    end if;
    if _subscribe_initiator and _initiator is null then
        perform tocsin.refuse('subscribe_initiator', 'subscribe_initiator is true without an initiator', 'Pass the id of the person who replied as initiator.');
    end if;

    event_id := nextval('tocsin.event_event_id_seq');
    if _idempotency_key is not null then
        _earlier := tocsin.earlier_event(_caller, _idempotency_key, event_id, jsonb_build_array(
            _event_type, array(select distinct u.id from unnest(_recipients) u (id) order by u.id), _title, _body,
            _action_url, _metadata, _initiator, _body_html, extract(epoch from _send_at)
        ) || case when _topic is null and _email is null then '[]' else jsonb_build_array(_topic, tocsin.compared_address(_email)) end
            || case when _subscribe_initiator then '["subscribe_initiator"]' else '[]' end::jsonb);
        if _earlier is not null then
            return query select _earlier, tocsin.told(_earlier), true;
            return;
        end if;
    end if;

    _event.event_id := event_id;
    _event.event_type := _event_type;
    _event.title := _title;
    _event.body := _body;
    _event.body_html := _body_html;
    _event.action_url := _action_url;
    _event.metadata := _metadata;
    _event.initiator := _initiator;
    _event.initiator_skipped := coalesce(_initiator = any (_recipients), false);
    _event.caller := _caller;
    _event.send_at := _send_at;
    _event.topic := _topic;
    _event.email := _email;
    _event.subscribe_initiator := coalesce(_subscribe_initiator, false);
    _event.created_at := _now;
    if _event.subscribe_initiator then
        perform tocsin.check_known(array[_initiator], 'initiator');
    end if;
    if _send_at > _now then
        perform tocsin.check_known(_people);
        _event.recipients := _people;
    else
        -- a call less where the list is the whole audience
        notifications := case
            when _topic is null and _email is null then tocsin.tell(event_id, _type, _people, null, _now)
            else tocsin.reach(_event, _type, null, _now)
        end;
        if notifications < cardinality(_people) then
            perform tocsin.check_known(_people);
        end if;
        if _topic is not null then
            _event.initiator_skipped := tocsin.skips_initiator(_event);
        elsif _email is not null then
            -- an address tells whose it is only now
            _event.initiator_skipped := notifications = 0;
        end if;
        _event.told_at := _now;
        _event.expires_at := _now + _type.time_to_live;
    end if;
    insert into tocsin.event values (_event.*);
    perform tocsin.ring();
    notifications := coalesce(notifications, 0);
    replayed := false;
    return next;
end
$$;

-- Tells an event to those it is meant for at this moment; answers how many.
create or replace function tocsin.reach(_event tocsin.event, _type tocsin.event_type, _people text[], _now timestamptz)
returns integer
language plpgsql
as $$
declare
    _because text[];
begin
    if _event.email is not null then
        return tocsin.invite(_event, _type, _now);
    end if;
    if _event.topic is not null then
        select array_agg(f.recipient_id), array_agg(f.because)
        into _people, _because
        from tocsin.followers(_event) f;
        if _event.subscribe_initiator then
            perform tocsin.follow_by_reply(_event);
        end if;
    end if;
    return tocsin.tell(_event.event_id, _type, _people, _because, _now);
end
$$;

-- How many people an event was told; those who muted its topic were not.
create or replace function tocsin.told(_event_id bigint) returns integer
language sql stable
as $$
    select count(*)::integer
    from tocsin.notification n
    where n.event_id = _event_id
        and coalesce(n.because, '') not in ('muted', 'not_mentioned')
$$;

-- The fan-out: notifications, badges, deliveries and their lanes, in one statement for any number of people.
-- Answers how many people were told; unknown ones are left out. `_because` goes with `_people`, or is null.
create or replace function tocsin.tell(
    _event_id bigint,
    _type tocsin.event_type,
    _people text[],
    _because text[],
    _now timestamptz
) returns integer
language plpgsql
-- one plan for one person and for 100,000: planning anew would cost three times what it takes to tell one
set plan_cache_mode = force_generic_plan
set jit = off
as $$
declare
    _told integer;
begin
    with person as materialized (
        select s.recipient_id, s.because, s.situation
        from tocsin.situations(_type, _people, _because) s
    ),
    decided as materialized (
        select d.situation, tocsin.decide(_type, d.situation) as decisions
        from (select distinct p.situation from person p) d
    ),
    told as (
        insert into tocsin.notification (event_id, recipient_id, event_type, created_at, in_inbox, decisions, because)
        select
            _event_id, p.recipient_id, _type.event_type, _now, d.decisions -> 'in_app' ->> 0 = 'on', d.decisions,
            p.because
        from person p
        join decided d using (situation)
        returning notification_id, recipient_id, in_inbox, decisions, because
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
        where t.decisions -> 'email' ->> 1 = 'digest'
    ),
    wanted as (
        select t.notification_id, t.recipient_id, 'email' as channel, null as device_id
        from told t
        where t.decisions -> 'email' ->> 0 = 'on'
        union all
        select t.notification_id, t.recipient_id, 'push', d.device_id
        from told t
        join tocsin.device d using (recipient_id)
        where t.decisions -> 'push' ->> 0 = 'on'
            and d.disabled_at is null
    ),
    queued as (
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
        insert into tocsin.lane (event_id, channel, priority)
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

-- Names the first unknown ones; _field is the argument that has them.
create or replace function tocsin.check_known(_people text[], _field text default 'recipients') returns void
language plpgsql stable
as $$
declare
    _unknown text[];
begin
    _unknown := array(
        select u.id
        from unnest(_people) u (id)
        where not exists (select from tocsin.recipient r where r.recipient_id = u.id)
        order by u.id
        limit 6
    );
    if cardinality(_unknown) > 0 then
        raise exception using
            errcode = 'TC002',
            column = _field,
            message = format(
                'unknown recipient%s %s%s',
                case when cardinality(_unknown) > 1 then 's' end,
                array_to_string(array(select quote_nullable(left(u, 60)) from unnest(_unknown[:5]) u), ', '),
                case when cardinality(_unknown) > 5 then ' and more' end
            ),
            hint = 'Create them first with tocsin.upsert_recipient(id, email, name) or PUT /api/recipients/{id}/. Nothing was stored.';
    end if;
end
$$;

-- The event that this key stands for already, or null once the key is ours. Waits only for a call with the same key.
create or replace function tocsin.earlier_event(_caller text, _key text, _event_id bigint, _content jsonb) returns bigint
language plpgsql
as $$
declare
    _fingerprint bytea := sha256(convert_to(_content::text, 'UTF8'));
    _earlier tocsin.idempotency;
begin
    insert into tocsin.idempotency as i (caller, key, fingerprint, event_id, created_at)
    values (_caller, _key, _fingerprint, _event_id, clock_timestamp())
    on conflict (caller, key) do update
    set fingerprint = excluded.fingerprint, event_id = excluded.event_id, created_at = excluded.created_at
    where i.created_at < clock_timestamp() - interval '24 hours';
    if found then
        return null;
    end if;
    select i.* into _earlier
    from tocsin.idempotency i
    where i.caller = _caller
        and i.key = _key;
    if _earlier.fingerprint <> _fingerprint then
        raise exception using
            errcode = 'TC003',
            column = 'idempotency_key',
            message = format('idempotency key %s was used for other content', quote_literal(left(_key, 100))),
            hint = format('It stands for event %s for 24 hours. Use a new key for a new event.', _earlier.event_id);
    end if;
    return _earlier.event_id;
end
$$;

-- Tells the events whose send_at has come, as if just then; someone erased since is left out.
create or replace function tocsin.tell_due_events(_limit integer) returns integer
language plpgsql
as $$
declare
    _event tocsin.event;
    _now timestamptz;
    _count integer := 0;
    _told integer;
begin
    for _event in
        select e.*
        from tocsin.event e
        where e.told_at is null
            and e.cancelled_at is null
            and e.send_at <= clock_timestamp()
        order by e.send_at
        limit _limit
        for update skip locked
    loop
        _now := clock_timestamp();
        select tocsin.reach(_event, t, _event.recipients, _now)
        into _told
        from tocsin.event_type t
        where t.event_type = _event.event_type;
        update tocsin.event e
        set told_at = _now,
            recipients = null,
            initiator_skipped = e.initiator_skipped or tocsin.skips_initiator(e) or (e.email is not null and _told = 0),
            expires_at = _now + (select t.time_to_live from tocsin.event_type t where t.event_type = e.event_type)
        where e.event_id = _event.event_id;
        _count := _count + 1;
    end loop;
    return _count;
end
$$;
