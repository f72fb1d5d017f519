-- Tokens of devices.

-- A token in the form in which it is stored, so that a phone is one row. APNs: hexadecimal digits in lower case; some apps
-- send them as older versions of iOS printed them, `<740f4707 bebcf74f …>`. FCM: as it is, without blanks around it.
create or replace function tocsin.stored_token(_provider text, _token text) returns text
language sql immutable strict parallel safe
as $$
    select case
        when _provider = 'apns' then lower(regexp_replace(_token collate "C", '[<>[:space:]]', '', 'g'))
        else regexp_replace(_token collate "C", '^[[:space:]]+|[[:space:]]+$', '', 'g')
    end
$$;

-- The same; raises an error where the provider can't accept the token.
create or replace function tocsin.checked_token(_provider text, _token text) returns text
language plpgsql immutable
as $$
declare
    _stored text := tocsin.stored_token(_provider, _token);
begin
    if _provider = 'apns' and (length(_stored) not between 64 and 200 or _stored !~ '^([0-9a-f]{2})+$') then
        perform tocsin.raise_invalid('token', 'token is not one of APNs',
            'Send the device token that iOS gave the app as 64 to 200 hexadecimal digits, two for each byte; for a token of Firebase set provider to fcm.');
    elsif _provider = 'fcm' and (length(_stored) not between 1 and 4096 or _stored !~ '^[!-~]+$') then
        perform tocsin.raise_invalid('token', 'token is not one of FCM',
            'Send the registration token that Firebase gave the app: 1 to 4,096 ASCII characters without blanks.');
    elsif _provider = 'web_push' and (length(_stored) > 2000 or _stored !~ '^https?://[][A-Za-z0-9.:_-]+(/[!-~]*)?$') then
        perform tocsin.raise_invalid('subscription.endpoint', 'the endpoint is not that of a push service',
            'Send the subscription as the browser''s PushSubscription.toJSON() has it.');
    end if;
    return _stored;
end
$$;

-- The keys of a browser's subscription, as they are stored; raises an error where they can't be such keys. Null for a phone.
create or replace function tocsin.checked_keys(_provider text, _keys jsonb) returns jsonb
language plpgsql immutable
as $$
begin
    if _provider <> 'web_push' then
        return null;
    end if;
    -- base64url of a point of P-256 and of 16 bytes
    if coalesce(_keys ->> 'p256dh', '') !~ '^B[A-Za-z0-9_-]{86}=?$' or coalesce(_keys ->> 'auth', '') !~ '^[A-Za-z0-9_-]{22}(==)?$' then
        perform tocsin.raise_invalid('subscription.keys', 'the keys are not those of a subscription',
            'Send the subscription as the browser''s PushSubscription.toJSON() has it.');
    end if;
    return jsonb_build_object('p256dh', _keys ->> 'p256dh', 'auth', _keys ->> 'auth');
end
$$;

-- Registers a device of a person, who is created where they are unknown; a device of another person moves. Returns its row,
-- and whether it was this person's already.
create or replace function tocsin.register_device(
    _recipient_id text,
    _token text,
    _platform text,
    _provider text,
    _environment text,
    _label text,
    _keys jsonb,
    out device tocsin.device,
    out known boolean
)
language plpgsql
as $$
declare
    _stored text;
begin
    if _platform is null or _platform not in ('ios', 'android', 'web') then
        perform tocsin.raise_invalid('platform', 'platform is neither ios, android nor web', 'Pass the system that the app runs on.');
    end if;
    _provider := coalesce(_provider, case _platform when 'ios' then 'apns' when 'android' then 'fcm' else 'web_push' end);
    if _provider = 'web_push' and _platform <> 'web' or _platform = 'web' and _provider <> 'web_push' then
        perform tocsin.raise_invalid('provider', 'platform web and provider web_push go together', 'Leave the provider out.');
    end if;
    if _provider not in ('apns', 'fcm', 'web_push') then
        perform tocsin.raise_invalid('provider', 'provider is neither apns nor fcm',
            'Pass the provider that the token is from, or null for the one of the platform.');
    end if;
    if _environment is null or _environment not in ('production', 'sandbox') then
        perform tocsin.raise_invalid('environment', 'environment is neither production nor sandbox',
            'Pass sandbox for an app that was installed by Xcode, else production.');
    end if;
    _stored := tocsin.checked_token(_provider, _token);
    _keys := tocsin.checked_keys(_provider, _keys);
    _label := tocsin.checked_label(_label);
    insert into tocsin.recipient (recipient_id)
    values (_recipient_id)
    on conflict do nothing;
    known := exists (
        select
        from tocsin.device d
        where d.token = _stored
            and d.recipient_id = _recipient_id
    );
    insert into tocsin.device as d (token, recipient_id, platform, provider, environment, label, keys)
    values (_stored, _recipient_id, _platform, _provider, _environment, _label, _keys)
    on conflict (token) do update
    set recipient_id = excluded.recipient_id,
        -- another person's label for it is not kept
        label = coalesce(excluded.label, case when d.recipient_id = excluded.recipient_id then d.label end),
        platform = excluded.platform,
        provider = excluded.provider,
        environment = excluded.environment,
        keys = excluded.keys,
        registered_at = clock_timestamp(),
        disabled_at = null,
        disabled_reason = null
    returning d.* into device;
    update tocsin.device d
    set disabled_at = clock_timestamp(), disabled_reason = 'too_many_devices'
    where d.device_id in (
        select o.device_id
        from tocsin.device o
        where o.recipient_id = _recipient_id
            and o.disabled_at is null
            and o.device_id <> (register_device.device).device_id
        order by o.registered_at desc, o.device_id desc
        -- with this one, 20
        offset 19
        for update skip locked
    );
end
$$;

-- The same for apps, without a label. Returns the device's id.
create or replace function tocsin.register_push_token(
    recipient text,
    token text,
    platform text,
    provider text default null,
    environment text default 'production'
) returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if $1 is null or length($1) > 200 or not tocsin.is_line($1) then
        perform tocsin.raise_invalid('recipient', 'recipient is not 1 to 200 characters in one line', 'Pass the id by which your app knows the person.');
    end if;
    if $2 is null then
        perform tocsin.raise_invalid('token', 'token is null', 'Pass the token that the phone gave the app.');
    end if;
    if $3 = 'web' then
        perform tocsin.raise_invalid('platform', 'a browser has no token', 'Call tocsin.register_web_push() with its subscription.');
    end if;
    return (
        select (r.device).device_id
        from tocsin.register_device($1, $2, $3, $4, $5, null, null) r
    );
end
$$;

comment on function tocsin.register_push_token(text, text, text, text, text) is
    'Registers a phone of a person by its token of APNs or FCM; returns the device''s id.';

-- The same for a browser, by what its PushSubscription.toJSON() has. Whether the endpoint leads to a public address is checked
-- before each request.
create or replace function tocsin.register_web_push(recipient text, subscription jsonb) returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if $1 is null or length($1) > 200 or not tocsin.is_line($1) then
        perform tocsin.raise_invalid('recipient', 'recipient is not 1 to 200 characters in one line', 'Pass the id by which your app knows the person.');
    end if;
    return (
        select (r.device).device_id
        from tocsin.register_device(
            $1, coalesce($2 ->> 'endpoint', ''), 'web', 'web_push', 'production', null, $2 -> 'keys'
        ) r
    );
end
$$;

comment on function tocsin.register_web_push(text, jsonb) is
    'Registers a browser of a person by its push subscription; returns the device''s id.';
