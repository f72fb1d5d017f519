-- Webhooks: which deliveries are messages to an app, and what an app does with its webhooks. webhook_outbox.sql has what they
-- are sent.

-- Whether a delivery is a message to an app webhook.
create or replace function tocsin.is_for_app(_delivery tocsin.delivery) returns boolean
language sql immutable
as $$
    select (_delivery).channel = 'webhook' and (_delivery).notification_id is null
$$;

-- After how many attempts a delivery has failed: 16 attempts for an app webhook, for all else the number of its event type.
create or replace function tocsin.most_attempts(_delivery tocsin.delivery, _of_type smallint) returns smallint
language sql immutable
as $$
    select case when tocsin.is_for_app(_delivery) then 16 else coalesce(_of_type, 10) end::smallint
$$;

-- Whether a target is a webhook of the app itself, not the channel of a person.
create or replace function tocsin.is_app_webhook(_target tocsin.target) returns boolean
language sql immutable
as $$
    select (_target).channel = 'webhook' and (_target).recipient_id is null and (_target).topic is null
$$;

-- How long a message to an app webhook may still be sent.
create or replace function tocsin.webhook_time_to_live() returns interval
language sql immutable
as $$
    select interval '72 hours'
$$;

-- Queues a message that tests a webhook. Returns its delivery.
create or replace function tocsin.queue_webhook_test(_target_id bigint) returns bigint
language plpgsql
as $$
declare
    _now timestamptz := clock_timestamp();
    _delivery_id bigint;
begin
    -- states: new -> queued
    insert into tocsin.delivery (channel, target_id, created_at, due_at, expires_at)
    select 'webhook', g.target_id, _now, _now, _now + tocsin.webhook_time_to_live()
    from tocsin.target g
    where g.target_id = _target_id
    returning delivery_id into _delivery_id;
    insert into tocsin.webhook_message (delivery_id, type, at, recipient_id, data)
    select _delivery_id, 'webhook.test', _now, g.recipient_id, jsonb_build_object('webhook', g.name)
    from tocsin.target g
    where g.target_id = _target_id;
    perform tocsin.wake();
    return _delivery_id;
end
$$;

-- Sends messages of a webhook once more, under the same ids: one, or those that were queued in a span of time and are over; with
-- _failed only those that the endpoint did not accept. At most _most, the oldest first. Returns how many.
create or replace function tocsin.replay_webhook(
    _target_id bigint,
    _delivery_id bigint,
    _since timestamptz,
    _until timestamptz,
    _failed boolean,
    _most integer
) returns integer
language plpgsql
as $$
begin
    return tocsin.requeue_settled(
        array(
            select d.delivery_id
            from tocsin.delivery d
            where d.target_id = _target_id
                and d.state in ('sent', 'failed', 'skipped', 'expired')
                and (_delivery_id is null or d.delivery_id = _delivery_id)
                and (_since is null or d.created_at >= _since)
                and (_until is null or d.created_at < _until)
                and (not _failed or d.state <> 'sent')
            order by d.delivery_id
            limit _most
            for update skip locked
        ),
        clock_timestamp() + tocsin.webhook_time_to_live()
    );
end
$$;

-- Disables webhooks that failed for five days. Returns those that were disabled since _since, by this or by their endpoint.
create or replace function tocsin.disable_failing_webhooks(_now timestamptz, _since timestamptz)
returns table (name text, reason text)
language plpgsql
as $$
begin
    update tocsin.target g
    set disabled_at = _now, disabled_reason = 'webhook_failing'
    where g.channel = 'webhook'
        and g.disabled_at is null
        and g.failing_since <= _now - interval '120 hours';
    return query
        select g.name, g.disabled_reason
        from tocsin.target g
        where g.channel = 'webhook'
            and g.disabled_at > _since;
end
$$;

-- Deletes messages to app webhooks, with their deliveries, from before _before. Returns how many.
create or replace function tocsin.clean_up_webhooks(_before timestamptz, _limit integer) returns integer
language plpgsql
as $$
declare
    _ids bigint[];
begin
    with gone as (
        delete from tocsin.webhook_message m
        where m.delivery_id = any (array(
            select o.delivery_id
            from tocsin.webhook_message o
            where o.at < _before
            order by o.at
            limit _limit
            for update skip locked
        ))
        returning m.delivery_id
    )
    select array_agg(g.delivery_id) into _ids
    from gone g;
    perform tocsin.delete_deliveries(_ids);
    return coalesce(cardinality(_ids), 0);
end
$$;
