-- App webhooks: what happens is written to an outbox, in the transaction in which it happens, as long as an app webhook wants it.
-- A worker makes a delivery for each webhook of it. So nothing is lost by a crash, and what is committed late is found late
-- (docs/adr/0074-webhooks.md).

-- Writes to the outbox what happened to these notifications or deliveries, or `_data` alone; nothing where no app webhook wants
-- it. Rows of 500 ids keep the work of one row small.
create or replace function tocsin.report(_type text, _recipient_id text, _ids bigint[], _data jsonb default null) returns void
language plpgsql
as $$
begin
    if exists (select from tocsin.wanted_webhook_type w where w.type = _type) then
        insert into tocsin.webhook_outbox (type, recipient_id, ids, data)
        select _type, _recipient_id, _ids[i:i + 499], _data
        from generate_series(1, greatest(cardinality(_ids), 1), 500) i
        where _ids is null
            or cardinality(_ids) > 0;
    end if;
end
$$;

-- Writes to the outbox that an event's notifications were made for these people in this transaction, but for those that only
-- record why a person was not notified.
create or replace function tocsin.report_created(_event_id bigint, _people text[]) returns void
language plpgsql
as $$
begin
    perform tocsin.report('notification.created', null, array(
        select n.notification_id
        from tocsin.notification n
        where n.event_id = _event_id
            and n.recipient_id = any (_people)
            and n.xid = pg_current_xact_id()
            and coalesce(n.because, '') not in ('muted', 'not_mentioned')
    ));
end
$$;

-- Writes to the outbox that a mail came back, or was reported as spam, after it had been sent.
create or replace function tocsin.report_bounced(_delivery_id bigint, _reason text) returns void
language plpgsql
as $$
begin
    perform tocsin.report('delivery.bounced', null, array[_delivery_id], jsonb_build_object('reason', _reason));
end
$$;

-- Writes to the outbox which channels people turned on or off: {scope: {channel: true, false or null}}, null where the choice was
-- removed. Not for a person who is erased.
create or replace function tocsin.report_preference_changes() returns trigger
language plpgsql
as $$
begin
    if exists (select from tocsin.wanted_webhook_type w where w.type = 'preference.changed') then
        insert into tocsin.webhook_outbox (type, recipient_id, data)
        select
            'preference.changed',
            s.recipient_id,
            jsonb_build_object('recipient', s.recipient_id, 'overrides', jsonb_object_agg(s.scope, s.channels))
        from (
            select c.recipient_id, c.scope, jsonb_object_agg(c.channel, case when tg_op <> 'DELETE' then c.enabled end) as channels
            from changed c
            join tocsin.recipient r using (recipient_id)
            group by c.recipient_id, c.scope
        ) s
        group by s.recipient_id;
    end if;
    return null;
end
$$;

create or replace trigger report_new_preferences
after insert on tocsin.preference referencing new table as changed
for each statement execute function tocsin.report_preference_changes();

create or replace trigger report_changed_preferences
after update on tocsin.preference referencing new table as changed
for each statement execute function tocsin.report_preference_changes();

create or replace trigger report_removed_preferences
after delete on tocsin.preference referencing old table as changed
for each statement execute function tocsin.report_preference_changes();

-- Writes to the outbox that a person used an unsubscribe link; _recipient_id is null for an address without an account.
create or replace function tocsin.report_unsubscribed(_recipient_id text, _scope text, _names text[]) returns void
language plpgsql
as $$
begin
    perform tocsin.report(
        'recipient.unsubscribed',
        _recipient_id,
        null,
        jsonb_build_object('recipient', _recipient_id, 'channel', 'email', 'scope', _scope, 'names', to_jsonb(_names))
    );
end
$$;

-- Whether app webhooks get a message about a delivery: not about one to an app webhook itself, which would never end, and not
-- about the push that corrects a badge.
create or replace function tocsin.is_reported(_delivery tocsin.delivery) returns boolean
language sql immutable
as $$
    select coalesce((_delivery).notification_id, (_delivery).digest_id) is not null or (_delivery).channel = 'chat'
$$;

-- After deliveries have reached a final state: writes to the outbox what became of them, and notes that a target works again.
create or replace function tocsin.report_settled() returns trigger
language plpgsql
as $$
begin
    -- mostly there is neither
    if not exists (
        select from tocsin.wanted_webhook_type
        union all
        select from tocsin.target g where g.failing_since is not null
    ) then
        return null;
    end if;
    if exists (select from tocsin.wanted_webhook_type) then
        insert into tocsin.webhook_outbox (type, ids)
        select w.type, array_agg(d.delivery_id)
        from tocsin.delivery d
        join tocsin.wanted_webhook_type w on w.type = 'delivery.' || d.state
        where d.delivery_id = any (new.delivery_ids)
            and tocsin.is_reported(d)
        group by w.type;
    end if;
    update tocsin.target g
    set failing_since = null
    from tocsin.delivery d
    where d.delivery_id = any (new.delivery_ids)
        and d.state = 'sent'
        and g.target_id = d.target_id
        and g.failing_since is not null;
    return null;
end
$$;

create or replace trigger report_settled
after insert on tocsin.settled_batch
for each row execute function tocsin.report_settled();

-- Keeps tocsin.wanted_webhook_type, and event_type.reports_created, which notify() reads with the row that it reads anyway.
create or replace function tocsin.keep_wanted_webhook_types() returns trigger
language plpgsql
as $$
declare
    _wanted text[];
begin
    -- of what is not an app's webhook nothing changes
    if not coalesce(tocsin.is_app_webhook(new), false) and not coalesce(tocsin.is_app_webhook(old), false) then
        return null;
    end if;
    -- one after the other: each sees the targets that the others have committed
    lock table tocsin.wanted_webhook_type in share row exclusive mode;
    _wanted := array(
        select distinct u.type
        from tocsin.target g
        cross join lateral unnest(g.events) u (type)
        where tocsin.is_app_webhook(g)
            and g.disabled_at is null
    );
    delete from tocsin.wanted_webhook_type w where w.type <> all (_wanted);
    insert into tocsin.wanted_webhook_type (type)
    select u.type
    from unnest(_wanted) u (type)
    on conflict do nothing;
    update tocsin.event_type t
    set reports_created = not t.reports_created
    where t.reports_created <> ('notification.created' = any (_wanted));
    return null;
end
$$;

-- For each row: settle() updates targets in several parts of one statement, of which a trigger for each statement would see one.

create or replace trigger target_keeps_wanted_webhook_types
after insert or delete on tocsin.target
for each row execute function tocsin.keep_wanted_webhook_types();

create or replace trigger changed_target_keeps_wanted_webhook_types
after update on tocsin.target
for each row when (
    old.events is distinct from new.events
    or old.recipient_id is distinct from new.recipient_id
    or (old.disabled_at is null) <> (new.disabled_at is null)
)
execute function tocsin.keep_wanted_webhook_types();

-- A new event type has it too.
create or replace function tocsin.set_reports_created() returns trigger
language plpgsql
as $$
begin
    new.reports_created := exists (select from tocsin.wanted_webhook_type w where w.type = 'notification.created');
    return new;
end
$$;

create or replace trigger set_reports_created
before insert on tocsin.event_type
for each row execute function tocsin.set_reports_created();

-- Makes deliveries of up to _most rows of the outbox. Returns how many rows it took: fewer than _most means that there are no more.
create or replace function tocsin.queue_webhooks(_most integer) returns integer
language plpgsql
as $$
declare
    _now timestamptz := clock_timestamp();
    _taken integer;
    _queued integer;
begin
    with taken as (
        delete from tocsin.webhook_outbox o
        where o.outbox_id = any (array(
            select i.outbox_id
            from tocsin.webhook_outbox i
            order by i.outbox_id
            limit _most
            -- another worker may be at them
            for update skip locked
        ))
        returning o.type, o.at, o.recipient_id, o.ids, o.data
    ),
    happened as (
        select k.type, k.at, null::bigint as event_id, k.recipient_id, k.data
        from taken k
        where k.ids is null
        union all
        select k.type, k.at, n.event_id, n.recipient_id, tocsin.notification_report(n, e) || coalesce(k.data, '{}')
        from taken k
        cross join lateral unnest(k.ids) u (notification_id)
        join tocsin.notification n on n.notification_id = u.notification_id
        join tocsin.event e on e.event_id = n.event_id
        where k.type like 'notification.%'
        union all
        select k.type, k.at, d.event_id, d.recipient_id, tocsin.delivery_report(d) || coalesce(k.data, '{}')
        from taken k
        cross join lateral unnest(k.ids) u (delivery_id)
        join tocsin.delivery d on d.delivery_id = u.delivery_id
        where k.type like 'delivery.%'
    ),
    message as materialized (
        select
            nextval('tocsin.delivery_delivery_id_seq') as delivery_id,
            g.target_id, h.type, h.at, h.event_id, h.recipient_id, h.data
        from happened h
        join tocsin.target g on h.type = any (g.events) and g.disabled_at is null and tocsin.is_app_webhook(g)
    ),
    queued as (
        insert into tocsin.webhook_message (delivery_id, type, at, recipient_id, data)
        select m.delivery_id, m.type, m.at, m.recipient_id, m.data
        from message m
    ),
    delivered as (
        -- states: new -> queued
        insert into tocsin.delivery (delivery_id, event_id, channel, target_id, created_at, due_at, expires_at)
        overriding system value
        select m.delivery_id, m.event_id, 'webhook', m.target_id, _now, _now, _now + tocsin.webhook_time_to_live()
        from message m
    )
    select (select count(*) from taken), (select count(*) from message)
    into _taken, _queued;
    if _queued > 0 then
        perform tocsin.wake();
    end if;
    return _taken;
end
$$;

-- What an app webhook is sent about a notification. The initiator is another person, so it is not in it.
create or replace function tocsin.notification_report(_notification tocsin.notification, _event tocsin.event) returns jsonb
language sql immutable
as $$
    select jsonb_build_object(
        'notification_id', (_notification).notification_id,
        'event_id', (_notification).event_id,
        'event_type', (_notification).event_type,
        'recipient', (_notification).recipient_id,
        'subject', (_notification).subject,
        'topic', (_event).topic,
        'title', (_event).title,
        'action_url', (_event).action_url,
        'in_inbox', (_notification).in_inbox
    )
$$;

-- What an app webhook is sent about a delivery; the address is not in it.
create or replace function tocsin.delivery_report(_delivery tocsin.delivery) returns jsonb
language sql immutable
as $$
    select jsonb_build_object(
        'delivery_id', (_delivery).delivery_id,
        'notification_id', (_delivery).notification_id,
        'event_id', (_delivery).event_id,
        'digest_id', (_delivery).digest_id,
        'recipient', (_delivery).recipient_id,
        'channel', (_delivery).channel,
        'attempts', (_delivery).attempts,
        'reason', (_delivery).reason
    )
$$;
