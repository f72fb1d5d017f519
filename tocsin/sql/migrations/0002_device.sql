-- Devices that take push: one row a token, which belongs to whoever registered it last.
create table tocsin.device (
    device_id bigint primary key generated always as identity,
    token text not null unique check (length(token) between 1 and 4096),
    recipient_id text not null references tocsin.recipient on delete cascade,
    platform text not null check (platform in ('ios', 'android')),
    provider text not null check (provider in ('apns', 'fcm')),
    environment text not null default 'production' check (environment in ('production', 'sandbox')),
    created_at timestamptz not null default clock_timestamp(),
    -- an answer of the provider that is older than this says nothing of the token any more
    registered_at timestamptz not null default clock_timestamp(),
    -- the provider would have no more of it; registering it anew enables it
    disabled_at timestamptz,
    disabled_reason text
);

-- list_devices, and who has one
create index device_recipient on tocsin.device (recipient_id);

alter table tocsin.delivery add column device_id bigint;

-- which of a channel's providers are configured: apns and fcm behind the one word push
alter table tocsin.channel add column providers text[] not null default '{}';
