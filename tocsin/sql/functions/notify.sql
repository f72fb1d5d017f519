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
    from tocsin.emit(('role:' || session_user) collate "default", $1, $2, $3, $4, $5, $6, $7, $8, $9, $10) e
$$;

-- The same with the caller named, for the HTTP API; nobody but the owner may execute it.
create or replace function tocsin.emit(
    _caller text,
    _event_type text,
    _recipients text[],
    _title text,
    _body text,
    _action_url text,
    _metadata jsonb,
    _initiator text,
    _idempotency_key text,
    _body_html text,
    _send_at timestamptz
) returns table (event_id bigint, notifications integer, replayed boolean)
language plpgsql
as $$
#variable_conflict use_column
declare
    _now timestamptz := clock_timestamp();
    _type tocsin.event_type;
    _people text[];
    _earlier bigint;
begin
    _type := tocsin.known_event_type(_event_type);
    perform tocsin.check_content(_title, _body, _body_html, _action_url, _metadata, _initiator, _idempotency_key);
    if array_ndims(_recipients) > 1 then
        perform tocsin.refuse('recipients', 'recipients has more than one dimension', 'Pass a flat array of ids such as array[''alice''].');
    end if;
    if _send_at not between _now - interval '100 years' and _now + interval '10 years' then
        perform tocsin.refuse('send_at', 'send_at is not within the next ten years', 'Pass a time with its zone, or null to tell it now.');
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

    event_id := nextval('tocsin.event_event_id_seq');
    if _idempotency_key is not null then
        _earlier := tocsin.earlier_event(_caller, _idempotency_key, event_id, jsonb_build_array(
            _event_type, array(select distinct u.id from unnest(_recipients) u (id) order by u.id), _title, _body,
            _action_url, _metadata, _initiator, _body_html, extract(epoch from _send_at)
        ));
        if _earlier is not null then
            return query
                select _earlier, (select count(*)::integer from tocsin.notification n where n.event_id = _earlier), true;
            return;
        end if;
    end if;

    if _send_at > _now then
        perform tocsin.check_known(_people);
    else
        notifications := tocsin.tell(event_id, _type, _people, _now);
        if notifications < cardinality(_people) then
            perform tocsin.check_known(_people);
        end if;
    end if;
    insert into tocsin.event (
        event_id, event_type, title, body, body_html, action_url, metadata, initiator, initiator_skipped, caller,
        send_at, recipients, created_at, told_at, expires_at
    )
    values (
        event_id, _event_type, _title, _body, _body_html, _action_url, _metadata, _initiator,
        coalesce(_initiator = any (_recipients), false), _caller, _send_at,
        case when _send_at > _now then _people end, _now,
        case when _send_at > _now then null else _now end,
        case when _send_at > _now then null else _now + _type.time_to_live end
    );
    perform tocsin.ring();
    notifications := coalesce(notifications, 0);
    replayed := false;
    return next;
end
$$;

-- The fan-out: notifications, badges, deliveries and their lanes, in one statement for any number of people.
-- Answers how many people were told; unknown ones are left out.
create or replace function tocsin.tell(_event_id bigint, _type tocsin.event_type, _people text[], _now timestamptz)
returns integer
language plpgsql
-- one plan for one person and for 100,000: planning anew would cost three times what it takes to tell one
set plan_cache_mode = force_generic_plan
set jit = off
as $$
declare
    _told integer;
begin
    with person as materialized (
        select s.recipient_id, s.situation
        from tocsin.situations(_type, _people) s
    ),
    decided as materialized (
        select d.situation, tocsin.decide(_type, d.situation) as decisions
        from (select distinct p.situation from person p) d
    ),
    told as (
        insert into tocsin.notification (event_id, recipient_id, event_type, created_at, in_inbox, decisions)
        select _event_id, p.recipient_id, _type.event_type, _now, d.decisions -> 'in_app' ->> 0 = 'on', d.decisions
        from person p
        join decided d using (situation)
        returning notification_id, recipient_id, in_inbox, decisions
    ),
    unread as (
        insert into tocsin.unread_delta (recipient_id, n)
        select t.recipient_id, 1
        from told t
        where t.in_inbox
    ),
    queued as (
        insert into tocsin.delivery (notification_id, event_id, recipient_id, channel, device_id, created_at)
        select t.notification_id, _event_id, t.recipient_id, 'email', null, _now
        from told t
        where t.decisions -> 'email' ->> 0 = 'on'
        union all
        select t.notification_id, _event_id, t.recipient_id, 'push', d.device_id, _now
        from told t
        join tocsin.device d using (recipient_id)
        where t.decisions -> 'push' ->> 0 = 'on'
            and d.disabled_at is null
        returning channel
    ),
    lane as (
        insert into tocsin.lane (event_id, channel, priority)
        select distinct _event_id, q.channel, _type.priority
        from queued q
    )
    select count(*)
    into _told
    from told;
    return _told;
end
$$;

-- Names the first unknown ones.
create or replace function tocsin.check_known(_people text[]) returns void
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
            column = 'recipients',
            message = format(
                'unknown recipient%s %s%s',
                case when cardinality(_unknown) > 1 then 's' end,
                array_to_string(array(select quote_literal(left(u, 60)) from unnest(_unknown[:5]) u), ', '),
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
        perform tocsin.tell(_event.event_id, t, _event.recipients, _now)
        from tocsin.event_type t
        where t.event_type = _event.event_type;
        update tocsin.event e
        set told_at = _now,
            recipients = null,
            expires_at = _now + (select t.time_to_live from tocsin.event_type t where t.event_type = e.event_type)
        where e.event_id = _event.event_id;
        _count := _count + 1;
    end loop;
    return _count;
end
$$;
