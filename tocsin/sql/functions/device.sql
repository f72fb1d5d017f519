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
    end if;
    return _stored;
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
    out device tocsin.device,
    out known boolean
)
language plpgsql
as $$
declare
    _stored text;
begin
    if _platform is null or _platform not in ('ios', 'android') then
        perform tocsin.raise_invalid('platform', 'platform is neither ios nor android', 'Pass the system that the app runs on.');
    end if;
    _provider := coalesce(_provider, case _platform when 'ios' then 'apns' else 'fcm' end);
    if _provider not in ('apns', 'fcm') then
        perform tocsin.raise_invalid('provider', 'provider is neither apns nor fcm',
            'Pass the provider that the token is from, or null for the one of the platform.');
    end if;
    if _environment is null or _environment not in ('production', 'sandbox') then
        perform tocsin.raise_invalid('environment', 'environment is neither production nor sandbox',
            'Pass sandbox for an app that was installed by Xcode, else production.');
    end if;
    _stored := tocsin.checked_token(_provider, _token);
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
    insert into tocsin.device as d (token, recipient_id, platform, provider, environment, label)
    values (_stored, _recipient_id, _platform, _provider, _environment, _label)
    on conflict (token) do update
    set recipient_id = excluded.recipient_id,
        -- another person's label for it is not kept
        label = coalesce(excluded.label, case when d.recipient_id = excluded.recipient_id then d.label end),
        platform = excluded.platform,
        provider = excluded.provider,
        environment = excluded.environment,
        registered_at = clock_timestamp(),
        disabled_at = null,
        disabled_reason = null
    returning d.* into device;
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
    return (
        select (r.device).device_id
        from tocsin.register_device($1, $2, $3, $4, $5, null) r
    );
end
$$;

comment on function tocsin.register_push_token(text, text, text, text, text) is
    'Registers a phone of a person by its token of APNs or FCM; returns the device''s id.';
