-- Reports of mails that came back, and complaints: docs/delivery.md#mail-that-comes-back.
--
-- A report may come before the outcome of its own delivery is stored, twice, or days later. What it suppresses is the
-- address that the delivery went to, never one that the report names.

-- Decides the effect of each report that waits. One that would suppress an address is held for _hold first, so that a mass
-- rejection is noticed before it. One whose delivery is not found, or is still being sent, waits for an hour at most.
-- Returns how many were decided, by effect: {effect: n}.
create or replace function tocsin.apply_mail_events(_hold interval) returns jsonb
language plpgsql
-- rows that an app's open transaction holds are left for the next time
set lock_timeout = '250ms'
as $$
declare
    _event tocsin.mail_event;
    _effect text;
    _discarded integer := tocsin.discard_mass_bounces();
    _effects jsonb := case when _discarded > 0 then jsonb_build_object('mass_rejection', _discarded) else '{}' end;
begin
    for _event in
        select m.*
        from tocsin.mail_event m
        where m.applied_at is null
        order by m.mail_event_id
        limit 1000
        for update skip locked
    loop
        begin
            _effect := tocsin.apply_mail_event(_event, _hold);
            if _effect is not null then
                _effects := tocsin.count_effect(_effects, _effect);
            end if;
        exception when lock_not_available then
            null;
        end;
    end loop;
    return _effects;
end
$$;

-- Adds one to a count of {effect: n}.
create or replace function tocsin.count_effect(_effects jsonb, _effect text) returns jsonb
language sql immutable
as $$
    select _effects || jsonb_build_object(_effect, coalesce((_effects ->> _effect)::integer, 0) + 1)
$$;

-- Decides the effect of one report; null: it waits.
create or replace function tocsin.apply_mail_event(_event tocsin.mail_event, _hold interval) returns text
language plpgsql
as $$
declare
    _delivery tocsin.delivery;
    _over boolean := _event.received_at < clock_timestamp() - interval '1 hour';
    _effect text;
begin
    select d.*
    into _delivery
    from tocsin.delivery d
    where d.delivery_id = coalesce(
        _event.delivery_id, tocsin.find_mailed_delivery(_event.provider_id, _event.address)
    )
        and d.channel = 'email';
    if _delivery.delivery_id is null then
        -- by a provider's id it may be found once its outcome is stored
        if _event.delivery_id is null and _event.provider_id is not null and not _over then
            return null;
        end if;
        _effect := 'unknown';
    elsif not _event.dead then
        _effect := 'recorded';
    elsif _delivery.state = 'sending' or _delivery.address is null then
        -- the address that it goes to is stored with its outcome
        if not _over then
            return null;
        end if;
        _effect := 'recorded';
    elsif _event.kind = 'bounce' and _event.received_at > clock_timestamp() - _hold then
        update tocsin.mail_event m
        set delivery_id = _delivery.delivery_id
        where m.mail_event_id = _event.mail_event_id
            and m.delivery_id is null;
        return null;
    else
        perform tocsin.suppress_mailed_address(_delivery.address, _event.reason);
        if _event.kind = 'complaint' then
            perform tocsin.turn_email_off_after_complaint(_delivery);
        end if;
        _effect := 'suppressed';
    end if;
    if _delivery.delivery_id is not null then
        perform tocsin.report_mail_event(_event, _delivery);
    end if;
    update tocsin.mail_event m
    set delivery_id = _delivery.delivery_id,
        address = null,
        applied_at = clock_timestamp(),
        effect = _effect
    where m.mail_event_id = _event.mail_event_id;
    return _effect;
end
$$;

-- Reports to app webhooks that a mail came back, or was marked as spam, for each delivery that was in it; once, though it may be
-- known from two sources.
create or replace function tocsin.report_mail_event(_event tocsin.mail_event, _delivery tocsin.delivery) returns void
language plpgsql
as $$
begin
    if exists (
        select
        from tocsin.mail_event m
        where m.delivery_id = _delivery.delivery_id
            and m.kind = _event.kind
            and m.mail_event_id <> _event.mail_event_id
            and m.applied_at is not null
    ) then
        return;
    end if;
    perform tocsin.report_bounced(d.delivery_id, _event.reason)
    from tocsin.delivery d
    where d.delivery_id = _delivery.delivery_id
        or d.burst_id = _delivery.burst_id;
end
$$;

-- The delivery to which a provider gave this id, among those of the person that has the reported address. The address only
-- narrows the search: no index has provider_id, since each sent mail would have to be written into it.
create or replace function tocsin.find_mailed_delivery(_provider_id text, _address text) returns bigint
language sql stable
as $$
    with compared as materialized (
        select tocsin.compared_address(_address) as address
        where _provider_id is not null
    ),
    person as materialized (
        select r.recipient_id
        from compared c
        join tocsin.recipient r on r.address = c.address
        union
        select o.recipient_id
        from compared c
        join tocsin.address_owner o on o.address = c.address
    )
    select min(f.delivery_id)
    from (
        select d.delivery_id, d.channel, d.provider_id
        from person p
        join tocsin.notification n on n.recipient_id = p.recipient_id
        join tocsin.delivery d on d.notification_id = n.notification_id
        where n.created_at > clock_timestamp() - interval '30 days'
        union all
        select d.delivery_id, d.channel, d.provider_id
        from person p
        join tocsin.digest g on g.recipient_id = p.recipient_id
        join tocsin.delivery d on d.digest_id = g.digest_id
        where g.created_at > clock_timestamp() - interval '30 days'
        union all
        -- a person without an account
        select d.delivery_id, d.channel, d.provider_id
        from compared c
        join tocsin.notification n on n.address = c.address and n.recipient_id is null
        join tocsin.delivery d on d.notification_id = n.notification_id
    ) f
    where f.channel = 'email'
        and f.provider_id = _provider_id
$$;

-- Suppresses an address, unless it is suppressed already.
create or replace function tocsin.suppress_mailed_address(_address text, _reason text) returns void
language sql
as $$
    insert into tocsin.suppression (address, reason)
    select a.address, _reason
    from tocsin.compared_address(_address) a (address)
    -- read first: an open claim_email() may be deleting it, and the insert would wait for that
    where not exists (select from tocsin.suppression k where k.key = tocsin.address_key(a.address))
    on conflict do nothing
$$;

-- Turns email off for the categories of a mail that its person marked as spam, or the digest if it was one. Mandatory event
-- types stay on.
create or replace function tocsin.turn_email_off_after_complaint(_delivery tocsin.delivery) returns void
language plpgsql
as $$
declare
    _categories text[];
begin
    if _delivery.digest_id is not null then
        perform tocsin.turn_digest_off(_delivery.recipient_id);
        return;
    end if;
    _categories := array(
        select distinct t.category
        from tocsin.delivery d
        join tocsin.event e using (event_id)
        join tocsin.event_type t using (event_type)
        where d.delivery_id = _delivery.delivery_id
            or d.burst_id = _delivery.burst_id
        order by t.category
    );
    -- what the person had turned on for one event type would take precedence over its category
    update tocsin.preference p
    set enabled = false, because = 'complaint', updated_at = now()
    from tocsin.event_type t
    where p.recipient_id = _delivery.recipient_id
        and p.channel = 'email'
        and p.enabled
        and t.event_type = p.scope
        and t.category = any (_categories);
    insert into tocsin.preference as p (recipient_id, scope, channel, enabled, because)
    select r.recipient_id, c.category || '.*', 'email', false, 'complaint'
    from tocsin.recipient r
    cross join unnest(_categories) c (category)
    where r.recipient_id = _delivery.recipient_id
    on conflict (recipient_id, scope, channel) do update
    set enabled = false, because = 'complaint', updated_at = now()
    where p.enabled;
end
$$;

-- Protects against a mass rejection, such as by a mail server that lost its list of mailboxes: if at least ten addresses came
-- back as dead within an hour, and they are half of what was sent in that hour or more, the reports that wait are recorded
-- and suppress nothing. Returns how many.
create or replace function tocsin.discard_mass_bounces() returns integer
language plpgsql
as $$
declare
    _since constant timestamptz := clock_timestamp() - interval '1 hour';
    _dead bigint;
    _event tocsin.mail_event;
    _count integer := 0;
begin
    if not exists (
        select
        from tocsin.mail_event m
        where m.applied_at is null
            and m.dead
            and m.kind = 'bounce'
    ) then
        return 0;
    end if;
    _dead := (
        select count(distinct d.address)
        from tocsin.mail_event m
        join tocsin.delivery d using (delivery_id)
        where m.received_at > _since
            and m.dead
            and m.kind = 'bounce'
    );
    if _dead < 10 or 2 * _dead < tocsin.mails_sent_since(_since, 2 * _dead) then
        return 0;
    end if;
    for _event in
        update tocsin.mail_event m
        set applied_at = clock_timestamp(), address = null, effect = 'mass_rejection'
        where m.mail_event_id = any (array(
            select o.mail_event_id
            from tocsin.mail_event o
            where o.applied_at is null
                and o.dead
                and o.kind = 'bounce'
                and o.delivery_id is not null
            for update skip locked
        ))
        returning m.*
    loop
        perform tocsin.report_mail_event(_event, d)
        from tocsin.delivery d
        where d.delivery_id = _event.delivery_id;
        _count := _count + 1;
    end loop;
    return _count;
end
$$;

-- How many mails were sent since a time: those that are counted by the minute, and others up to _most + 1.
create or replace function tocsin.mails_sent_since(_since timestamptz, _most bigint) returns bigint
language sql stable
as $$
    select
        coalesce(
            (
                select sum(m.n)
                from tocsin.delivery_minute m
                where m.minute >= _since
                    and m.channel = 'email'
                    and m.state = 'sent'
            ),
            0
        )::bigint
        + (
            select count(*)
            from (
                select
                from tocsin.settled_batch b
                cross join unnest(b.delivery_ids) u (delivery_id)
                join tocsin.delivery d on d.delivery_id = u.delivery_id
                where b.settled_at >= greatest(_since, (select p.upto from tocsin.delivery_minute_progress p))
                    and d.channel = 'email'
                    and d.state = 'sent'
                limit _most + 1
            ) s
        )
$$;

-- The report on the mail of a delivery, which may have been sent together with others of its burst: {"kind", "reason", "at"};
-- null: there is none. A complaint comes before a bounce.
create or replace function tocsin.mail_event_of(_delivery_id bigint, _burst_id bigint) returns jsonb
language sql stable
as $$
    select jsonb_build_object('kind', m.kind, 'reason', m.reason, 'at', tocsin.json_time(m.occurred_at))
    from tocsin.mail_event m
    where m.delivery_id in (_delivery_id, _burst_id)
    order by m.kind = 'complaint' desc, m.mail_event_id
    limit 1
$$;

-- The scopes in which a person's email was turned off by a complaint.
create or replace function tocsin.complaints_of(_recipient_id text) returns text[]
language sql stable
as $$
    select array(
        select p.scope
        from tocsin.preference p
        where p.recipient_id = _recipient_id
            and p.because = 'complaint'
            and not p.enabled
        order by p.scope
    )
$$;
