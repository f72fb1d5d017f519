-- Actions: the buttons of an event, of which each person who is notified presses one, once.

-- Why no button of a notification can be pressed any more: `cancelled`, `replaced`, `expired`; null: one can.
create or replace function tocsin.actions_closed(_notification tocsin.notification, _event tocsin.event) returns text
language sql stable
as $$
    select case
        when _event.cancelled_at is not null then 'cancelled'
        when _notification.replaced_by is not null then 'replaced'
        when _event.expires_at <= clock_timestamp() then 'expired'
    end
$$;

-- Presses a button of one of a person's notifications, and marks the notification read. The first press counts. Returns how it
-- ended, and the key that was chosen: `acted` (also if that key was chosen before), `other`, `cancelled`, `replaced`, `expired`,
-- `unknown_key`, or `unknown`: there is no such notification.
--
-- The counter's row is locked until the commit, so that numbers are committed in their order: whoever has read one has nothing
-- to expect below it.
create or replace function tocsin.press_action(_recipient_id text, _notification_id bigint, _key text)
returns table (outcome text, chosen text)
language plpgsql
set lock_timeout = '250ms'
as $$
declare
    _notification tocsin.notification;
    _event tocsin.event;
    _chosen text;
    _seq bigint;
begin
    select n.* into _notification
    from tocsin.notification n
    where n.notification_id = _notification_id
        and n.recipient_id = _recipient_id
    for update;
    if not found then
        return query select 'unknown', null::text;
        return;
    end if;
    select e.* into strict _event
    from tocsin.event e
    where e.event_id = _notification.event_id;
    select a.key into _chosen
    from tocsin.action a
    where a.notification_id = _notification_id;
    if not coalesce(_event.actions @> jsonb_build_array(jsonb_build_object('key', _key)), false) then
        return query select 'unknown_key', null::text;
    elsif _chosen is not null then
        return query select case when _chosen = _key then 'acted' else 'other' end, _chosen;
    elsif tocsin.actions_closed(_notification, _event) is not null then
        return query select tocsin.actions_closed(_notification, _event), null::text;
    else
        perform tocsin.mark_read(_recipient_id, _notification_id, true);
        update tocsin.action_counter c
        set seq = c.seq + 1
        returning c.seq into strict _seq;
        insert into tocsin.action (notification_id, event_id, recipient_id, key, seq)
        values (_notification_id, _notification.event_id, _recipient_id, _key, _seq);
        insert into tocsin.inbox_change (recipient_id, change, notification_ids)
        values (_recipient_id, 'acted', array[_notification_id]);
        perform tocsin.report('notification.acted', null, array[_notification_id], jsonb_build_object('key', _key));
        perform tocsin.wake(array[_recipient_id]);
        return query select 'acted', _key;
    end if;
end
$$;

-- What a person chose for a notification, as {"key", "at"}; null if nothing yet.
create or replace function tocsin.acted(_notification_id bigint) returns jsonb
language sql stable
as $$
    select jsonb_build_object('key', a.key, 'at', tocsin.json_time(a.at))
    from tocsin.action a
    where a.notification_id = _notification_id
$$;

-- What people chose after this number, in the order of the commits, at most 1,000: the app keeps the last number that it has
-- read, and passes it next time; null is 0. No lower number comes later.
create or replace function tocsin.actions_since(after bigint default 0) returns table (
    seq bigint,
    event_id bigint,
    recipient text,
    key text,
    at timestamptz
)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select a.seq, a.event_id, a.recipient_id, a.key, a.at
    from tocsin.action a
    where a.seq > coalesce($1, 0)
    order by a.seq
    limit 1000
$$;
