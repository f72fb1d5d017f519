-- What notify() stores for one person with an address and a device, with fixed decisions and without the wake-up signal.
-- The floor.
create schema bench;

create function bench.insert_only(_person text, _device bigint, _title text, _body text, _action_url text, _metadata jsonb)
returns bigint language plpgsql as $$
declare
    _now timestamptz := clock_timestamp();
    _event_id bigint;
    _notification_id bigint;
begin
    insert into tocsin.event (event_type, title, body, action_url, metadata, initiator_skipped, caller, created_at, fanned_out_at, expires_at)
    values ('forum.new_reply', _title, _body, _action_url, _metadata, false, 'role:app', _now, _now, _now + interval '3 days')
    returning event_id into _event_id;
    insert into tocsin.notification (event_id, recipient_id, event_type, created_at, in_inbox, decisions)
    values (_event_id, _person, 'forum.new_reply', _now, true, '{"in_app": ["on", "default"], "email": ["on", "default"], "push": ["on", "default"]}')
    returning notification_id into _notification_id;
    insert into tocsin.unread_delta (recipient_id, n) values (_person, 1);
    insert into tocsin.delivery (notification_id, event_id, recipient_id, channel, device_id, created_at)
    values (_notification_id, _event_id, _person, 'email', null, _now), (_notification_id, _event_id, _person, 'push', _device, _now);
    insert into tocsin.event_queue (event_id, channel, priority) values (_event_id, 'email', 1), (_event_id, 'push', 1);
    return _event_id;
end $$;
