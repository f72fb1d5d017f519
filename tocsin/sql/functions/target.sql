-- Targets: webhooks, and channels of chats.

-- Keeps recipient.further_channels. A channel is added at once. It is removed only where no other transaction holds the
-- person's row, so that nobody waits: one that stays in the list costs a look-up at each notify(), and nothing else.
create or replace function tocsin.keep_further_channels() returns trigger
language plpgsql
as $$
declare
    _channel text;
begin
    if tg_op <> 'DELETE' and new.recipient_id is not null and new.disabled_at is null then
        _channel := coalesce(tg_argv[0], to_jsonb(new) ->> 'channel');
        update tocsin.recipient r
        set further_channels = array(select u from unnest(r.further_channels || _channel) u order by u)
        where r.recipient_id = new.recipient_id
            and _channel <> all (r.further_channels);
    end if;
    if tg_op <> 'INSERT' and old.recipient_id is not null and old.disabled_at is null then
        update tocsin.recipient r
        set further_channels = tocsin.further_channels_of(r.recipient_id)
        where r.recipient_id = (
                select o.recipient_id
                from tocsin.recipient o
                where o.recipient_id = old.recipient_id
                for no key update skip locked
            )
            and r.further_channels <> tocsin.further_channels_of(r.recipient_id);
    end if;
    return null;
end
$$;

create or replace trigger target_keeps_further_channels
after insert or delete or update of channel, recipient_id, disabled_at on tocsin.target
for each row execute function tocsin.keep_further_channels();

create or replace trigger device_adds_further_channel
after insert on tocsin.device
for each row when (new.provider = 'web_push') execute function tocsin.keep_further_channels('web_push');

create or replace trigger device_keeps_further_channel
after update of recipient_id, provider, disabled_at on tocsin.device
for each row when (new.provider = 'web_push') execute function tocsin.keep_further_channels('web_push');

create or replace trigger device_removes_further_channel
after delete on tocsin.device
for each row when (old.provider = 'web_push') execute function tocsin.keep_further_channels('web_push');

-- Queues a delivery for each target of an event's topic. It belongs to the event alone: a target has no inbox, no preferences
-- and no quiet hours, and gets each event of the topic, whoever follows it.
create or replace function tocsin.fan_out_to_targets(_event tocsin.event, _type tocsin.event_type, _now timestamptz) returns void
language plpgsql
as $$
begin
    with queued as (
        -- states: new -> queued
        insert into tocsin.delivery (event_id, channel, target_id, created_at)
        select _event.event_id, g.channel, g.target_id, _now
        from tocsin.target g
        where g.topic = _event.topic
            and g.disabled_at is null
        returning channel
    )
    insert into tocsin.event_queue (event_id, channel, priority)
    select distinct _event.event_id, q.channel, _type.priority
    from queued q;
end
$$;

-- The decisions of a notification, and with them the further channels that were not decided since the person has no subscription
-- or target of them.
create or replace function tocsin.with_absent_channels(_decisions jsonb) returns jsonb
language sql stable
as $$
    select _decisions || coalesce(
        (
            select jsonb_object_agg(
                c.channel,
                case c.channel when 'web_push' then '["off", "no_subscription"]'::jsonb else '["off", "no_target"]' end
            )
            from tocsin.channel c
            where c.further
                and c.available
                and not _decisions ? c.channel
        ),
        '{}'
    )
$$;
