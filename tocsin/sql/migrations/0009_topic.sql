-- Topics: what people follow, and how closely.

-- No foreign key: a reply's row would keep its person from being erased for as long as the app's transaction is open.
create table tocsin.subscription (
    topic text not null,
    recipient_id text not null,
    -- 0: what the person chose, or an app for them. Else the event by which they replied: a row of its own, so that two
    -- open transactions that each have a reply of theirs to one topic don't wait for each other. The lowest one counts.
    event_id bigint not null default 0,
    subscription_id bigint not null generated always as identity,
    level text not null check (level in ('all', 'mentions', 'muted')),
    -- followed or replied: why they were told
    because text not null check (because in ('followed', 'replied')),
    -- what muting took the place of, for an undo; null: nothing
    level_before text,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    -- followers, look
    primary key (topic, recipient_id, event_id)
);

-- list_subscriptions
create index subscription_recipient on tocsin.subscription (recipient_id, created_at desc, subscription_id desc);

alter table tocsin.event
    -- the initiator follows the topic as soon as it is told
    add column subscribe_initiator boolean not null default false;

alter table tocsin.event_type
    -- says that somebody was mentioned: reaches those, too, who follow a topic for mentions only
    add column mention boolean not null default false;

update tocsin.event_type
set mention = true
where event_type in ('forum.mention', 'messages.group_mention');

-- its arguments changed
drop function if exists
    tocsin.emit(text, text, text[], text, text, text, text, text, jsonb, text, text, text, timestamptz);
