-- notify(): one event for each of its recipients, in the caller's own transaction.
--
-- It only inserts, so it waits for no other transaction and none waits for it. The deliveries wait in their event's queue
-- until the leader, which is woken by the commit, makes jobs of them.

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
    send_at timestamptz default null,
    subject text default null,
    replaces boolean default false,
    content jsonb default null,
    actions jsonb default null,
    unknown text default 'error'
) returns bigint
-- plpgsql keeps the plan; an SQL function would be planned at each call
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    -- session_user: inside a SECURITY DEFINER function current_user is the function's owner. It is of type name, whose
    -- collation would spread to each comparison and keep indexes from being used.
    _caller text := ('role:' || session_user) collate "default";
    _event_id bigint;
begin
    -- the usual call: to one person, at once
    if idempotency_key is null and send_at is null and cardinality(recipients) = 1
        and not replaces and content is null and actions is null and unknown = 'error'
        and (subject is null or subject ~ '^[A-Za-z0-9._:/-]{1,200}$')
        and (initiator is null or initiator <> recipients[1])
        and current_setting('transaction_read_only') = 'off'
        and tocsin.is_valid_content(title, body, body_html, action_url, metadata, initiator)
    then
        _event_id := tocsin.create_event_for_one(
            nextval('tocsin.event_event_id_seq'),
            _caller, event_type, recipients[1], title, body, body_html, action_url, metadata, initiator, clock_timestamp(),
            subject
        );
        if _event_id is not null then
            return _event_id;
        end if;
    end if;
    return (
        tocsin.create_event(
            _caller, $1, $2, null, null, $3, $4, $5, $6, $7, $8, $9, $10, false, $11, $12, $13, $14, $15
        )
    ).event_id;
end
$$;

-- Stores an event and fans it out: for recipients, for the followers of a topic, or for an address; at once or, with
-- send_at in the future, later. All arguments are checked. It is for the service and for the functions that apps call.
create or replace function tocsin.create_event(
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
    _subscribe_initiator boolean default false,
    _subject text default null,
    _replaces boolean default false,
    _content jsonb default null,
    _actions jsonb default null,
    _unknown text default 'error',
    out event_id bigint,
    out notifications integer,
    out replayed boolean
)
language plpgsql
as $$
#variable_conflict use_column
declare
    _now timestamptz := clock_timestamp();
    _later boolean := coalesce(_send_at > _now, false);
    _listed boolean := _topic is null and _email is null;
    _type tocsin.event_type;
    _fault text[];
    _people text[];
    _event tocsin.event;
    _skipped boolean;
    _sliced boolean := false;
    _earlier bigint;
    _unknown_skipped integer := 0;
    _busy text[] := '{}';
begin
    _subject := coalesce(_subject, _topic);
    if coalesce(_content, _actions) is not null then
        -- what is null counts as left out: JSON encoders write it so
        _content := nullif(jsonb_strip_nulls(_content), 'null');
        _actions := nullif(_actions, 'null');
    end if;
    if current_setting('transaction_read_only') = 'on' then
        raise exception using
            errcode = 'read_only_sql_transaction',
            message = 'an event can''t be stored in a read-only transaction',
            hint = 'Begin the transaction with READ WRITE, and on the primary, not on a standby. Nothing was stored.';
    end if;
    select t.* into _type
    from tocsin.event_type t
    where t.event_type = _event_type
        and t.retired_at is null;
    if not found then
        perform tocsin.raise_unknown_event_type(_event_type);
    end if;
    if tocsin.is_valid_content(_title, _body, _body_html, _action_url, _metadata, _initiator) is not true then
        _fault := tocsin.find_content_fault(_title, _body, _body_html, _action_url, _metadata, _initiator);
    else
        _fault := case
            when length(_idempotency_key) > 255 or not tocsin.is_line(_idempotency_key) then
                array['idempotency_key', 'idempotency_key is not 1 to 255 characters in one line', 'A UUID is enough.']
            when _send_at not between _now - interval '100 years' and _now + interval '10 years' then
                array['send_at', 'send_at is not within the next ten years', 'Pass a time with its zone, or null to send it now.']
            when _subscribe_initiator and _initiator is null then
                array['subscribe_initiator', 'subscribe_initiator is true without an initiator', 'Pass the id of the person who replied as initiator.']
            when _listed and tocsin.recipients_fault(_recipients) is not null then tocsin.recipients_fault(_recipients)
            -- the usual call has no options, and the function takes 2 % of it
            when _subject is null and not _replaces and _content is null and _actions is null and _unknown = 'error' then null
            else tocsin.find_option_fault(_topic, _subject, _replaces, _content, _actions, _unknown)
        end;
    end if;
    if _fault is not null then
        perform tocsin.raise_invalid(_fault[1], _fault[2], _fault[3]);
    elsif _listed then
        _people := case
            when cardinality(_recipients) = 1 and coalesce(_initiator <> all (_recipients), true) then _recipients
            else tocsin.distinct_except(_initiator, _recipients)
        end;
    else
        perform tocsin.check_address(_email);
        if _topic is not null then
            perform tocsin.check_topic(_topic);
        end if;
    end if;

    event_id := nextval('tocsin.event_event_id_seq');
    if _idempotency_key is not null then
        _earlier := tocsin.earlier_event(_caller, _idempotency_key, event_id, jsonb_build_array(
            _event_type,
            -- one is a set already, without the call of a function
            case when cardinality(_recipients) = 1 then _recipients else tocsin.distinct_except(null, _recipients) end,
            _title, _body, _action_url, _metadata, _initiator, _body_html,
            extract(epoch from _send_at)
        ) || case when _listed then '[]' else jsonb_build_array(_topic, tocsin.compared_address(_email)) end
            || case when _subscribe_initiator then '["subscribe_initiator"]' else '[]' end::jsonb
            || tocsin.options_fingerprint(nullif(_subject, _topic), _replaces, _content, _actions, _unknown));
        if _earlier is not null then
            event_id := _earlier;
            notifications := tocsin.count_notified(_earlier);
            replayed := true;
            return;
        end if;
    end if;

    if _subscribe_initiator then
        perform tocsin.check_recipients_known(array[_initiator], 'initiator');
    end if;
    if _unknown = 'create' then
        _busy := tocsin.create_recipients_by_id(_people);
    elsif _unknown = 'skip' and _listed then
        _unknown_skipped := cardinality(_people);
        _people := tocsin.known_recipients(_people);
        _unknown_skipped := _unknown_skipped - cardinality(_people);
    end if;
    if _later then
        perform tocsin.check_recipients_known(array(select u.id from unnest(_people) u (id) where u.id <> all (_busy)));
    elsif _listed then
        if cardinality(_people) = 1 and _send_at is null and not coalesce(_subscribe_initiator, false)
            and not _replaces and coalesce(_content, _actions) is null and _unknown_skipped = 0
            and not coalesce(_initiator = any (_recipients), false)
            and tocsin.create_event_for_one(
                event_id, _caller, _event_type, _people[array_lower(_people, 1)],
                _title, _body, _body_html, _action_url, _metadata, _initiator, _now, _subject
            ) is not null
        then
            notifications := 1;
            replayed := false;
            return;
        end if;
        notifications := tocsin.fan_out(event_id, _type, _people, null, _now, _subject);
        if notifications + cardinality(_busy) < cardinality(_people) then
            perform tocsin.check_recipients_known(array(select u.id from unnest(_people) u (id) where u.id <> all (_busy)));
        end if;
    else
        _event.event_id := event_id;
        _event.event_type := _event_type;
        _event.metadata := _metadata;
        _event.initiator := _initiator;
        _event.topic := _topic;
        _event.email := _email;
        _event.subject := _subject;
        _event.subscribe_initiator := _subscribe_initiator;
        notifications := tocsin.fan_out_event(_event, _type, null, _now, tocsin.fan_out_at_once());
        _sliced := notifications is null;
        -- only now is it known whose an address is
        _skipped := case when _topic is null then notifications = 0 else tocsin.skips_initiator(_event) end;
    end if;
    insert into tocsin.event (
        event_id, event_type, title, body, body_html, action_url, metadata, initiator, initiator_skipped, caller, send_at,
        recipients, created_at, fanned_out_at, expires_at, topic, email, subscribe_initiator,
        subject, replaces, content, actions, unknown_skipped, traceparent
    )
    values (
        event_id, _event_type, _title, _body, _body_html, _action_url, _metadata, _initiator,
        coalesce(_skipped, _initiator = any (_recipients), false), _caller, _send_at,
        case when _later then _people end, _now, case when not _later and not _sliced then _now end,
        case when not _later then _now + _type.time_to_live end, _topic, _email, coalesce(_subscribe_initiator, false),
        _subject, _replaces, _content, _actions, _unknown_skipped, tocsin.traceparent()
    );
    if cardinality(_busy) > 0 then
        insert into tocsin.pending_change (change, event_id, recipient_id)
        select 'create', create_event.event_id, b.id
        from unnest(_busy) b (id);
    end if;
    if _sliced then
        perform tocsin.begin_fan_out(_event, _now);
    elsif _replaces and not _later then
        perform tocsin.replace_earlier(event_id);
        insert into tocsin.pending_change (change, event_id)
        values ('replace', event_id);
    end if;
    if tocsin.leader_is_idle() then
        perform tocsin.wake(case when _listed then _people else tocsin.inbox_owners(event_id) end);
    end if;
    notifications := coalesce(notifications, 0);
    replayed := false;
end
$$;

-- The span of the app that the caller's transaction is a part of: the setting tocsin.traceparent. Null where there is none, or
-- it is not as W3C Trace Context defines it.
create or replace function tocsin.traceparent() returns text
language sql stable
as $$
    select case
        -- each digit as 0: a regular expression takes more than twice as long
        when translate(current_setting('tocsin.traceparent', true), '123456789abcdef', '000000000000000')
                = '00-00000000000000000000000000000000-0000000000000000-00'
            and current_setting('tocsin.traceparent', true) not like 'ff%'
            and current_setting('tocsin.traceparent', true) not like '%-00000000000000000000000000000000-%'
            and current_setting('tocsin.traceparent', true) not like '%-0000000000000000-%'
            then current_setting('tocsin.traceparent', true)
    end
$$;

-- Each recipient once and in order, without the initiator.
create or replace function tocsin.distinct_except(_initiator text, _recipients text[]) returns text[]
language sql immutable
as $$
    select array(
        select distinct u.id
        from unnest(_recipients) u (id)
        where u.id is distinct from _initiator
        order by u.id
    )
$$;

-- Resolves an event's audience as of this moment (its address, the followers of its topic, or `_people`) and fans it out.
-- Returns how many people were notified; null where they are more than `_at_once`: then nobody was, and the fan-out has to
-- begin in slices.
create or replace function tocsin.fan_out_event(
    _event tocsin.event,
    _type tocsin.event_type,
    _people text[],
    _now timestamptz,
    _at_once integer
) returns integer
language plpgsql
as $$
declare
    _because text[];
begin
    if _event.email is not null then
        return tocsin.fan_out_to_address(_event, _type, _now);
    end if;
    if _event.topic is not null then
        select array_agg(f.recipient_id), array_agg(f.because)
        into _people, _because
        from (select f.recipient_id, f.because from tocsin.followers(_event) f limit _at_once + 1) f;
        perform tocsin.fan_out_to_targets(_event, _type, _now);
        if _event.subscribe_initiator then
            perform tocsin.follow_by_reply(_event);
        end if;
    end if;
    if cardinality(_people) > _at_once then
        return null;
    end if;
    return tocsin.fan_out(_event.event_id, _type, _people, _because, _now, _event.subject);
end
$$;

-- How many people were notified of an event, without those who muted its topic.
create or replace function tocsin.count_notified(_event_id bigint) returns integer
language sql stable
as $$
    select count(*)::integer
    from tocsin.notification n
    where n.event_id = _event_id
        and coalesce(n.because, '') not in ('muted', 'not_mentioned')
$$;

-- The people who have an event in their inbox; of very many, enough of them to be announced as everyone.
create or replace function tocsin.inbox_owners(_event_id bigint) returns text[]
language sql stable
as $$
    select array(
        select n.recipient_id
        from tocsin.notification n
        where n.event_id = _event_id
            and n.in_inbox
        limit 5001
    )
$$;

-- Raises an error that names the first unknown people; _field is the argument that has them.
create or replace function tocsin.check_recipients_known(_people text[], _field text default 'recipients') returns void
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
            hint = 'Create them first with tocsin.upsert_recipient(id, email, name) or PUT /api/recipients/{id}/. Nothing was stored.'
                || case
                    when array_to_string(_unknown, '') ~ '[,;]' then ' Several ids are several elements of an array, not one text.'
                    else ''
                end;
    end if;
end
$$;

-- The event for which this idempotency key was used, or null where it is new. Waits only for a call with the same key.
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

-- Fans out the events whose send_at has come, as if they were created just then; people who were erased are left out. One for more
-- than `_at_once` people is begun, and written in slices.
create or replace function tocsin.fan_out_due_events(_limit integer, _at_once integer default 500) returns integer
language plpgsql
as $$
declare
    _event tocsin.event;
    _now timestamptz;
    _count integer := 0;
    _notified integer;
    _moved text[] := '{}';
begin
    for _event in
        select e.*
        from tocsin.event e
        where e.fanned_out_at is null
            and e.cancelled_at is null
            and e.send_at <= clock_timestamp()
            and not exists (select from tocsin.running_fan_out f where f.event_id = e.event_id)
        order by e.send_at
        limit _limit
        for update skip locked
    loop
        _now := clock_timestamp();
        select tocsin.fan_out_event(_event, t, _event.recipients, _now, _at_once)
        into _notified
        from tocsin.event_type t
        where t.event_type = _event.event_type;
        update tocsin.event e
        set fanned_out_at = case when _notified is not null then _now end,
            recipients = case when _notified is null then e.recipients end,
            initiator_skipped = e.initiator_skipped or tocsin.skips_initiator(e) or (e.email is not null and _notified = 0),
            expires_at = _now + (select t.time_to_live from tocsin.event_type t where t.event_type = e.event_type)
        where e.event_id = _event.event_id;
        if _notified is null then
            perform tocsin.begin_fan_out(_event, _now);
        elsif _event.replaces then
            perform tocsin.replace_earlier(_event.event_id);
            insert into tocsin.pending_change (change, event_id)
            values ('replace', _event.event_id);
        end if;
        _count := _count + 1;
        _moved := _moved || tocsin.inbox_owners(_event.event_id);
    end loop;
    perform tocsin.wake(_moved);
    return _count;
end
$$;
