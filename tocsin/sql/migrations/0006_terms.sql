-- A person's own terms: digests and quiet hours; and deliveries that are no single notification's.

-- whom an event is told besides a list of people: the followers of a topic, or somebody by an address alone
alter table tocsin.event
    add column topic text,
    add column email text;

-- why somebody was told who was not named: followed, replied, mentioned; muted and not_mentioned were not told
alter table tocsin.notification add column because text;

-- Some deliveries stand for no single notification: a digest, and the push that corrects a badge.
alter table tocsin.delivery
    alter column notification_id drop not null,
    alter column event_id drop not null,
    add column digest_id bigint,
    -- the first of those that went as one mail: together again at each attempt, under one Message-ID
    add column burst_id bigint,
    -- without an event: when it is no use any more
    add column expires_at timestamptz;

-- claim: the others of a burst
create index delivery_burst on tocsin.delivery (burst_id) where burst_id is not null;
-- clean_up, and the digest's fate
create index delivery_digest on tocsin.delivery (digest_id) where digest_id is not null;

alter table tocsin.event_type
    -- {channel: interval}: how long it waits for the person to read it first
    add column delays jsonb not null default '{}',
    -- channels on which it is not sent to those who have read it by then
    add column skip_if_read text[] not null default '{}',
    -- never in one mail with others
    add column alone boolean not null default false;

-- when somebody wants no mail and no push; `ends` before `starts`: over midnight
create table tocsin.quiet_hours (
    recipient_id text primary key references tocsin.recipient on delete cascade,
    starts time not null,
    ends time not null check (ends <> starts),
    -- null: the recipient's own, or UTC
    timezone text,
    updated_at timestamptz not null default now()
);

create table tocsin.digest_preference (
    recipient_id text primary key references tocsin.recipient on delete cascade,
    frequency text not null check (frequency in ('off', 'daily', 'weekly')),
    -- null: all
    categories text[],
    send_at time not null default '06:00',
    -- null: the recipient's own, or UTC
    timezone text,
    -- 1 is Monday
    weekday smallint not null default 1 check (weekday between 1 and 7),
    -- null: none is to come; turned off, there is one last where something waits
    next_at timestamptz,
    updated_at timestamptz not null default now()
);

-- assemble_digests
create index digest_preference_next on tocsin.digest_preference (next_at) where next_at is not null;

-- one summary mail: at most one for a person and a period
create table tocsin.digest (
    digest_id bigint primary key generated always as identity,
    recipient_id text not null,
    frequency text not null,
    -- when it was due
    due_at timestamptz not null,
    created_at timestamptz not null default clock_timestamp(),
    unique (recipient_id, due_at)
);

-- what waits for a digest (digest_id null) or was in one: each notification in one at most
create table tocsin.digest_item (
    notification_id bigint primary key,
    recipient_id text not null,
    digest_id bigint
) with (autovacuum_vacuum_scale_factor = 0.02);

-- assemble_digests
create index digest_item_waiting on tocsin.digest_item (recipient_id) where digest_id is null;
-- digest_items
create index digest_item_digest on tocsin.digest_item (digest_id) where digest_id is not null;

-- their arguments changed
drop function if exists
    tocsin.emit(text, text, text[], text, text, text, jsonb, text, text, text, timestamptz),
    tocsin.tell(bigint, tocsin.event_type, text[], timestamptz),
    tocsin.situations(tocsin.event_type, text[]);
