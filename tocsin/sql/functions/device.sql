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
