-- The tables of Tocsin, in its own schema inside the app's own database. The tables of a noun stand together; each table
-- and column has a comment, from which docs/schema.md is made. An index is preceded by the names of the queries and
-- functions that it serves.
--
-- Three rules shape the tables:
-- - No statement of an app's transaction updates a row that another transaction may update, so no app waits for another.
--   The badge, for instance, is kept as appended changes.
-- - The hot tables have no foreign keys, which would make a fan-out 1.6 times as expensive, no checks and no generated columns,
--   whose expressions PostgreSQL reads again at each insert
--   (docs/adr/0008-no-foreign-keys-on-the-hot-tables.md). All writers are functions of sql/functions.
-- - Rows that a process has to notice after their commit carry their transaction's id (xid), since serial ids and times
--   are taken before the commit and so miss rows that are committed late.

comment on table tocsin.migration is 'Migrations that were applied to this database, and the versions of Procrastinate''s schema.';
comment on column tocsin.migration.name is 'File name of the migration, or "procrastinate" and its version.';
comment on column tocsin.migration.checksum is 'SHA-256 of the file in hexadecimal; empty for Procrastinate.';
comment on column tocsin.migration.applied_at is 'When it was applied.';

-- == Channels, providers, event types ==

create table tocsin.channel (
    channel text primary key check (channel ~ '^[a-z][a-z0-9_]*$'),
    position smallint not null,
    available boolean not null,
    further boolean not null,
    task text
);

comment on table tocsin.channel is 'Channels by which notifications reach people.';
comment on column tocsin.channel.channel is 'Its name: in_app, email, push, web_push, webhook or chat.';
comment on column tocsin.channel.position is 'Its place in lists, from 1.';
comment on column tocsin.channel.available is 'Whether a provider is configured for it; derived from tocsin.provider, and read by notify().';
comment on column tocsin.channel.further is 'Whether it reaches only those who have a subscription or a target of it; for others nothing is decided.';
comment on column tocsin.channel.task is 'Procrastinate task that sends its deliveries; null for in_app, which has none.';

insert into tocsin.channel (channel, position, available, further, task)
values
    ('in_app', 1, true, false, null),
    ('email', 2, true, false, 'send_notification_emails'),
    ('push', 3, false, false, 'send_notification_pushes'),
    ('web_push', 4, false, true, 'send_notification_web_pushes'),
    ('webhook', 5, false, true, 'send_notification_webhooks'),
    ('chat', 6, false, true, 'send_notification_chats');

create table tocsin.provider (
    channel text not null references tocsin.channel,
    provider text not null,
    offered_at timestamptz not null,
    primary key (channel, provider)
);

comment on table tocsin.provider is 'Providers that the running workers are configured for.';
comment on column tocsin.provider.channel is 'Channel that it serves.';
comment on column tocsin.provider.provider is 'Its name: email, apns, apns_sandbox, fcm, web_push, chat or webhook.';
comment on column tocsin.provider.offered_at is 'When a worker last reported that it is configured.';

create table tocsin.category (
    category text primary key check (category ~ '^[a-z][a-z0-9_]*$'),
    label text not null,
    position smallint not null
);

comment on table tocsin.category is 'Categories of event types.';
comment on column tocsin.category.category is 'Its name, the first part of the names of its event types.';
comment on column tocsin.category.label is 'Its name as people read it.';
comment on column tocsin.category.position is 'Its place in lists, from 1.';

create table tocsin.event_type (
    event_type text primary key check (event_type ~ '^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$'),
    category text not null references tocsin.category,
    label text not null,
    position smallint not null,
    default_channels text[] not null,
    mandatory_channels text[] not null default '{}',
    default_decisions jsonb,
    priority smallint not null default 1 check (priority between 0 and 2),
    time_to_live interval not null default '3 days' check (time_to_live > '0'),
    max_attempts smallint not null default 10 check (max_attempts between 1 and 50),
    delays jsonb not null default '{}',
    skip_if_read text[] not null default '{}',
    allows_digest boolean not null default true,
    alone boolean not null default false,
    mention boolean not null default false,
    grouped boolean not null default true,
    title_many jsonb,
    throttle_most integer check (throttle_most > 0),
    throttle_within interval check (throttle_within > '0'),
    unread_retention interval check (unread_retention > '0'),
    reports_created boolean not null default false,
    retired_at timestamptz,
    check ((throttle_most is null) = (throttle_within is null))
);

comment on table tocsin.event_type is 'The catalogue of event types.';
comment on column tocsin.event_type.event_type is 'Its name, category.name.';
comment on column tocsin.event_type.category is 'Its category.';
comment on column tocsin.event_type.label is 'Its name as people read it.';
comment on column tocsin.event_type.position is 'Its place in lists, from 1.';
comment on column tocsin.event_type.default_channels is 'Channels that are on where a person chose nothing.';
comment on column tocsin.event_type.mandatory_channels is 'Channels that nobody can turn off.';
comment on column tocsin.event_type.default_decisions is 'Decisions for people who chose nothing: a list of 8, by what is missing (tocsin.default_decisions); kept by triggers.';
comment on column tocsin.event_type.priority is '0 low, 1 normal, 2 high: dispatched first, and in quiet hours too.';
comment on column tocsin.event_type.time_to_live is 'How long after its event a delivery may still be sent, in hours.';
comment on column tocsin.event_type.max_attempts is 'Attempts at a delivery before it has failed.';
comment on column tocsin.event_type.delays is 'Waiting time before a delivery is sent, by channel: {channel: interval}.';
comment on column tocsin.event_type.skip_if_read is 'Channels on which nothing is sent once the notification is read.';
comment on column tocsin.event_type.allows_digest is 'Whether its notifications may wait for a digest.';
comment on column tocsin.event_type.alone is 'Whether each of its mails is sent alone, never as one mail with others.';
comment on column tocsin.event_type.mention is 'Whether it means that a person was mentioned: it also reaches those who follow a topic for mentions only.';
comment on column tocsin.event_type.grouped is 'Whether its notifications of one subject are one item of a grouped inbox.';
comment on column tocsin.event_type.title_many is 'Title of a group of several: {language: {plural category of CLDR: text}}; null: the title of the newest one.';
comment on column tocsin.event_type.throttle_most is 'Messages of it to one person (and about one subject) within throttle_within; what is beyond is joined to one later message. null: no limit.';
comment on column tocsin.event_type.throttle_within is 'The time for which throttle_most counts.';
comment on column tocsin.event_type.unread_retention is 'How long a notification stays in the inbox unread before it is deleted, in hours; null: as long as those of all types.';
comment on column tocsin.event_type.reports_created is 'Whether an app webhook wants notification.created; the same for all types, and kept by triggers.';
comment on column tocsin.event_type.retired_at is 'When it left the catalogue; the row is kept for events that name it.';

-- == Recipients, and what belongs to them ==

create table tocsin.recipient (
    recipient_id text primary key check (length(recipient_id) between 1 and 200),
    email text,
    name text,
    locale text,
    timezone text,
    avatar_url text,
    address text,
    address_key bytea,
    further_channels text[] not null default '{}',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

-- find_address_owner
create index recipient_address on tocsin.recipient (address, created_at, recipient_id) where address is not null;

comment on table tocsin.recipient is 'People who can be notified.';
comment on column tocsin.recipient.recipient_id is 'The id by which the host app knows the person.';
comment on column tocsin.recipient.email is 'Email address as the app gave it.';
comment on column tocsin.recipient.name is 'Name as the app gave it.';
comment on column tocsin.recipient.locale is 'Language, a BCP 47 tag.';
comment on column tocsin.recipient.timezone is 'Time zone, an IANA name.';
comment on column tocsin.recipient.avatar_url is 'Address of a picture, shown to those whom the person notifies.';
comment on column tocsin.recipient.address is 'The email in the form in which addresses are compared (tocsin.compared_address); kept by a trigger.';
comment on column tocsin.recipient.address_key is 'Keyed hash of address (tocsin.address_key); stored, since hashing at each notify() takes longer than the look-up.';
comment on column tocsin.recipient.further_channels is 'Channels beyond email and push for which the person has a live subscription or target, or had one lately; kept by triggers, so that notify() looks for them only where there are some.';
comment on column tocsin.recipient.created_at is 'When the person became known.';
comment on column tocsin.recipient.updated_at is 'When the app last changed something.';

create table tocsin.device (
    device_id bigint primary key generated always as identity,
    token text not null unique check (length(token) between 1 and 4096),
    recipient_id text not null references tocsin.recipient on delete cascade,
    platform text not null check (platform in ('ios', 'android', 'web')),
    provider text not null check (provider in ('apns', 'fcm', 'web_push')),
    environment text not null default 'production' check (environment in ('production', 'sandbox')),
    label text check (length(label) between 1 and 100),
    keys jsonb,
    created_at timestamptz not null default clock_timestamp(),
    registered_at timestamptz not null default clock_timestamp(),
    disabled_at timestamptz,
    disabled_reason text
);

-- list_devices, recipient_facts
create index device_recipient on tocsin.device (recipient_id);

comment on table tocsin.device is 'Devices and browsers that receive pushes, one row for each token.';
comment on column tocsin.device.device_id is 'Its id.';
comment on column tocsin.device.token is 'Token of APNs or FCM, as tocsin.stored_token() writes it; of a browser the address of its subscription.';
comment on column tocsin.device.recipient_id is 'The person who registered the token last.';
comment on column tocsin.device.platform is 'ios, android or web.';
comment on column tocsin.device.provider is 'apns, fcm or web_push.';
comment on column tocsin.device.environment is 'Environment of APNs: production or sandbox.';
comment on column tocsin.device.label is 'Name of the device as the person knows it, such as "Alice''s iPhone".';
comment on column tocsin.device.keys is 'Of a browser: the keys of its subscription, with which pushes are encrypted.';
comment on column tocsin.device.created_at is 'When the token was registered first.';
comment on column tocsin.device.registered_at is 'When the token was registered last; an older response of the provider is not about it.';
comment on column tocsin.device.disabled_at is 'When the provider refused the token permanently; registering it again enables it.';
comment on column tocsin.device.disabled_reason is 'The provider''s reason for that.';

create table tocsin.target (
    target_id bigint primary key generated always as identity,
    channel text not null references tocsin.channel check (channel in ('webhook', 'chat')),
    name text not null check (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
    kind text,
    url text not null check (length(url) between 1 and 2000),
    recipient_id text references tocsin.recipient on delete cascade,
    topic text,
    events text[],
    secrets jsonb,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    failing_since timestamptz,
    disabled_at timestamptz,
    disabled_reason text,
    unique (channel, name),
    check (num_nonnulls(recipient_id, topic) <= 1),
    check (channel <> 'chat' or kind is not null and num_nonnulls(recipient_id, topic) = 1)
);

-- further_channels_of, further_messages
create index target_recipient on tocsin.target (recipient_id) where recipient_id is not null;
-- fan_out_to_targets
create index target_topic on tocsin.target (topic) where topic is not null;
-- report_settled
create index target_failing on tocsin.target (target_id) where failing_since is not null;

comment on table tocsin.target is 'Where an app sends further: webhooks, and channels of chats; of a person, of a topic, or of the app itself.';
comment on column tocsin.target.target_id is 'Its id.';
comment on column tocsin.target.channel is 'webhook or chat.';
comment on column tocsin.target.name is 'Its name, unique within the channel.';
comment on column tocsin.target.kind is 'Of a chat: slack, discord, teams, telegram or apprise; null for a webhook.';
comment on column tocsin.target.url is 'Address to which it is sent. That of a chat is a secret: who has it may post there.';
comment on column tocsin.target.recipient_id is 'The person whose channel it is.';
comment on column tocsin.target.topic is 'The topic of which it gets each event, whoever follows it.';
comment on column tocsin.target.events is 'Of an app''s webhook: the types of message that it receives.';
comment on column tocsin.target.secrets is 'Of a webhook: the secrets that sign, the newest first.';
comment on column tocsin.target.created_at is 'When it was made.';
comment on column tocsin.target.updated_at is 'When the app last changed it.';
comment on column tocsin.target.failing_since is 'When it began to fail; null: the last attempt was accepted.';
comment on column tocsin.target.disabled_at is 'When it was disabled; putting it again enables it.';
comment on column tocsin.target.disabled_reason is 'The reason for that.';

create table tocsin.wanted_webhook_type (
    type text primary key
);

comment on table tocsin.wanted_webhook_type is 'What at least one app webhook wants to be sent: as long as this is empty, nothing is written to the outbox. Kept by a trigger.';
comment on column tocsin.wanted_webhook_type.type is 'The type, such as delivery.failed.';

create table tocsin.webhook_outbox (
    outbox_id bigint primary key generated always as identity,
    type text not null,
    at timestamptz not null default clock_timestamp(),
    recipient_id text,
    ids bigint[],
    data jsonb
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);

-- erase_personal_data
create index webhook_outbox_recipient on tocsin.webhook_outbox (recipient_id) where recipient_id is not null;

comment on table tocsin.webhook_outbox is 'What happened and app webhooks want, written in the transaction in which it happened; deleted once it is a delivery.';
comment on column tocsin.webhook_outbox.outbox_id is 'Its id.';
comment on column tocsin.webhook_outbox.type is 'What happened, such as delivery.failed.';
comment on column tocsin.webhook_outbox.at is 'When.';
comment on column tocsin.webhook_outbox.recipient_id is 'The person, where it is of no notification and no delivery.';
comment on column tocsin.webhook_outbox.ids is 'The notifications or deliveries that it happened to, up to 500; null: neither.';
comment on column tocsin.webhook_outbox.data is 'What else the app is sent.';

create table tocsin.preference (
    recipient_id text not null references tocsin.recipient on delete cascade,
    scope text not null,
    channel text not null references tocsin.channel,
    enabled boolean not null,
    because text check (because = 'complaint'),
    updated_at timestamptz not null default now(),
    primary key (recipient_id, scope, channel)
);

comment on table tocsin.preference is 'Channels that people turned on or off.';
comment on column tocsin.preference.recipient_id is 'The person.';
comment on column tocsin.preference.scope is 'What it applies to: an event type, a category as "category.*", or "*"; the narrowest one counts.';
comment on column tocsin.preference.channel is 'The channel.';
comment on column tocsin.preference.enabled is 'On or off.';
comment on column tocsin.preference.because is 'complaint: turned off since the person marked a mail as spam; null: chosen by the person.';
comment on column tocsin.preference.updated_at is 'When the person last changed it.';

create table tocsin.quiet_hours (
    recipient_id text primary key references tocsin.recipient on delete cascade,
    starts time not null,
    ends time not null check (ends <> starts),
    timezone text,
    updated_at timestamptz not null default now()
);

comment on table tocsin.quiet_hours is 'Hours of the day in which a person gets no mail and no push.';
comment on column tocsin.quiet_hours.recipient_id is 'The person.';
comment on column tocsin.quiet_hours.starts is 'Local time at which they start.';
comment on column tocsin.quiet_hours.ends is 'Local time at which they end; before starts: on the next day.';
comment on column tocsin.quiet_hours.timezone is 'Time zone; null: the recipient''s, or UTC.';
comment on column tocsin.quiet_hours.updated_at is 'When the person last changed them.';

create table tocsin.digest_preference (
    recipient_id text primary key references tocsin.recipient on delete cascade,
    frequency text not null check (frequency in ('off', 'daily', 'weekly')),
    categories text[],
    send_at time not null default '06:00',
    weekday smallint not null default 1 check (weekday between 1 and 7),
    timezone text,
    next_at timestamptz,
    unsubscribed boolean not null default false,
    updated_at timestamptz not null default now()
);

-- assemble_digests
create index digest_preference_next on tocsin.digest_preference (next_at) where next_at is not null;

comment on table tocsin.digest_preference is 'Which digests people want, and when the next one is due.';
comment on column tocsin.digest_preference.recipient_id is 'The person.';
comment on column tocsin.digest_preference.frequency is 'off, daily or weekly.';
comment on column tocsin.digest_preference.categories is 'Categories whose notifications it takes; null: all.';
comment on column tocsin.digest_preference.send_at is 'Local time at which it is due.';
comment on column tocsin.digest_preference.weekday is 'Day on which a weekly one is due; 1 is Monday.';
comment on column tocsin.digest_preference.timezone is 'Time zone; null: UTC.';
comment on column tocsin.digest_preference.next_at is 'When the next one is due; null: none. After it is turned off, one more is due if something waits.';
comment on column tocsin.digest_preference.unsubscribed is 'Whether it was turned off by an unsubscribe link: what waits is then settled, not sent.';
comment on column tocsin.digest_preference.updated_at is 'When the person last changed it.';

create table tocsin.inbox_preference (
    recipient_id text primary key references tocsin.recipient on delete cascade,
    grouped boolean not null,
    updated_at timestamptz not null default now()
);

comment on table tocsin.inbox_preference is 'How people want their inbox to be shown.';
comment on column tocsin.inbox_preference.recipient_id is 'The person.';
comment on column tocsin.inbox_preference.grouped is 'Whether notifications of one event type and subject are shown as one item.';
comment on column tocsin.inbox_preference.updated_at is 'When the person last changed it.';

-- No foreign key: the row of a reply would keep its person from being erased as long as the app's transaction is open.
create table tocsin.subscription (
    topic text not null,
    recipient_id text not null,
    event_id bigint not null default 0,
    subscription_id bigint not null generated always as identity,
    level text not null check (level in ('all', 'mentions', 'muted')),
    because text not null check (because in ('followed', 'replied')),
    level_before text,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    -- followers, topic_withheld_reason
    primary key (topic, recipient_id, event_id)
);

-- list_older_subscriptions, list_newer_subscriptions
create index subscription_recipient on tocsin.subscription (recipient_id, created_at desc, subscription_id desc);

comment on table tocsin.subscription is 'Topics that people follow. Of several rows of a person and topic, the one with the lowest event_id counts.';
comment on column tocsin.subscription.topic is 'The topic.';
comment on column tocsin.subscription.recipient_id is 'The person.';
comment on column tocsin.subscription.event_id is '0: chosen by the person, or by an app for them. Else the event by which they replied: a row of its own, so that two open transactions with a reply each don''t wait for one another.';
comment on column tocsin.subscription.subscription_id is 'Its id, for lists in pages.';
comment on column tocsin.subscription.level is 'all, mentions or muted.';
comment on column tocsin.subscription.because is 'How the subscription came about: followed or replied.';
comment on column tocsin.subscription.level_before is 'Level before the topic was muted, for an undo; null: there was no subscription.';
comment on column tocsin.subscription.created_at is 'When it was made.';
comment on column tocsin.subscription.updated_at is 'When its level last changed.';

create table tocsin.address_owner (
    address text primary key,
    recipient_id text not null references tocsin.recipient on delete cascade,
    claimed_at timestamptz not null default clock_timestamp(),
    xid xid8 not null default pg_current_xact_id()
);

-- export_address_owners, erase_recipient
create index address_owner_recipient on tocsin.address_owner (recipient_id);
-- assignable_since
create index address_owner_xid on tocsin.address_owner (xid);

comment on table tocsin.address_owner is 'Addresses that apps assigned to a person by claim_email().';
comment on column tocsin.address_owner.address is 'The address in the form in which addresses are compared.';
comment on column tocsin.address_owner.recipient_id is 'The person.';
comment on column tocsin.address_owner.claimed_at is 'When the app did so.';
comment on column tocsin.address_owner.xid is 'The transaction that wrote the row.';

create table tocsin.suppression (
    suppression_id bigint generated always as identity,
    address text,
    reason text not null,
    created_at timestamptz not null default now(),
    key bytea primary key
);

-- list_older_suppressions, list_newer_suppressions
create index suppression_created on tocsin.suppression (created_at desc, suppression_id desc);

comment on table tocsin.suppression is 'Addresses that must not be mailed.';
comment on column tocsin.suppression.suppression_id is 'Its id, for lists.';
comment on column tocsin.suppression.address is 'The address in the form in which addresses are compared; null once its person is erased.';
comment on column tocsin.suppression.reason is 'Why: a provider''s reason, complaint or unsubscribed.';
comment on column tocsin.suppression.created_at is 'Since when.';
comment on column tocsin.suppression.key is 'Keyed hash of the address (tocsin.address_key); kept by a trigger.';

create table tocsin.opt_out (
    recipient_id text not null references tocsin.recipient on delete cascade,
    key text not null,
    kept jsonb not null,
    created_at timestamptz not null default now(),
    primary key (recipient_id, key)
);

comment on table tocsin.opt_out is 'What unsubscribe links turned off, for their undo.';
comment on column tocsin.opt_out.recipient_id is 'The person.';
comment on column tocsin.opt_out.key is 'The link and the scope that was chosen.';
comment on column tocsin.opt_out.kept is 'State before and after: {"overrides": {scope: [before, since]}, "frequency": that of the digest, if it was on}.';
comment on column tocsin.opt_out.created_at is 'When the link was used.';

create table tocsin.timezone (
    name text primary key
);

comment on table tocsin.timezone is 'Time zones that this PostgreSQL knows; filled by each migration.';
comment on column tocsin.timezone.name is 'The IANA name.';

-- == Events and notifications ==

create table tocsin.event (
    -- by default, not always: notify() takes the id first, for the idempotency key
    event_id bigint primary key generated by default as identity,
    event_type text not null,
    title text not null,
    body text not null,
    body_html text,
    action_url text,
    metadata jsonb not null,
    initiator text,
    initiator_skipped boolean not null default false,
    caller text not null,
    topic text,
    subscribe_initiator boolean not null default false,
    email text,
    subject text,
    replaces boolean not null default false,
    content jsonb,
    actions jsonb,
    unknown_skipped integer not null default 0,
    traceparent text,
    recipients text[],
    send_at timestamptz,
    created_at timestamptz not null,
    fanned_out_at timestamptz,
    expires_at timestamptz,
    cancelled_at timestamptz,
    withdrawn boolean not null default false,
    xid xid8 not null default pg_current_xact_id()
);

-- fan_out_due_events
create index event_send_at on tocsin.event (send_at) where fanned_out_at is null and cancelled_at is null;
-- erase_personal_data, list_older_events, list_newer_events
create index event_initiator on tocsin.event (initiator) where initiator is not null;
-- list_older_events, list_newer_events
create index event_created_at on tocsin.event (created_at desc, event_id desc);
-- erase_personal_data: the events that mention a person
create index event_mentions on tocsin.event using gin ((metadata -> 'mentions')) where metadata ? 'mentions';
-- erase_personal_data, erase_from_events, erase_invitations, export_scheduled: events whose people have no notification by which they
-- are found. They are scheduled, or invitations to the initiator's own address.
create index event_not_notified on tocsin.event (event_id)
where fanned_out_at is null or email is not null and initiator_skipped;

-- withdraw
create index event_subject on tocsin.event (subject) where subject is not null and cancelled_at is null;

comment on table tocsin.event is 'What happened, as an app reported it.';
comment on column tocsin.event.event_id is 'Its id.';
comment on column tocsin.event.event_type is 'Its event type. No foreign key: each call would lock the type''s row; types are retired, never deleted.';
comment on column tocsin.event.title is 'What happened, in one line.';
comment on column tocsin.event.body is 'More of it as plain text; may be empty.';
comment on column tocsin.event.body_html is 'The body as HTML, as the app gave it; sanitised when it is rendered.';
comment on column tocsin.event.action_url is 'Where a click leads: a path, or an http(s) address.';
comment on column tocsin.event.metadata is 'JSON object for clients; "mentions" lists the ids of people who are mentioned.';
comment on column tocsin.event.initiator is 'Id of the person who caused it.';
comment on column tocsin.event.initiator_skipped is 'Whether the initiator was among the recipients and was left out.';
comment on column tocsin.event.caller is 'The app that called: "role:" and its database role, or "key:" and its API key.';
comment on column tocsin.event.topic is 'Topic whose followers are notified; null: recipients or email.';
comment on column tocsin.event.subscribe_initiator is 'Whether the initiator follows the topic from the fan-out on.';
comment on column tocsin.event.email is 'Address of a person without an account who is notified.';
comment on column tocsin.event.subject is 'What it is about, such as forum.thread:42; null: nothing that other events are about too.';
comment on column tocsin.event.replaces is 'Whether it replaces earlier unread ones of the same person, type and subject.';
comment on column tocsin.event.content is 'Other texts for a channel or a language, as the app gave them; null: none.';
comment on column tocsin.event.actions is 'One to three buttons: [{"key", "label", "url", "style"}]; null: none.';
comment on column tocsin.event.unknown_skipped is 'How many recipients were left out because nobody has their id.';
comment on column tocsin.event.traceparent is 'The span of the app that reported it, by W3C Trace Context; null: none was given.';
comment on column tocsin.event.recipients is 'Ids of people to notify at send_at; null after the fan-out.';
comment on column tocsin.event.send_at is 'When a scheduled event is due; null: at once.';
comment on column tocsin.event.created_at is 'When the app reported it.';
comment on column tocsin.event.fanned_out_at is 'When its notifications were made, of a running fan-out all of them; null: it is scheduled, is being fanned out, or was cancelled before the end.';
comment on column tocsin.event.expires_at is 'After this, nothing of it is sent any more.';
comment on column tocsin.event.cancelled_at is 'When it was cancelled.';
comment on column tocsin.event.withdrawn is 'Whether it was cancelled because its subject was withdrawn.';
comment on column tocsin.event.xid is 'The transaction that reported it: its own withdrawal does not match what it reports afterwards.';

create table tocsin.idempotency (
    caller text not null,
    key text not null,
    fingerprint bytea not null,
    event_id bigint,
    created_at timestamptz not null default now(),
    primary key (caller, key)
);

comment on table tocsin.idempotency is 'Idempotency keys of the last 24 hours.';
comment on column tocsin.idempotency.caller is 'The app, as in event.caller.';
comment on column tocsin.idempotency.key is 'The key that the app chose.';
comment on column tocsin.idempotency.fingerprint is 'Hash of the normalised arguments of the first call.';
comment on column tocsin.idempotency.event_id is 'The event of the first call.';
comment on column tocsin.idempotency.created_at is 'When the first call was made.';

create table tocsin.notification (
    notification_id bigint primary key generated always as identity,
    event_id bigint not null,
    recipient_id text,
    address text,
    event_type text not null,
    subject text,
    created_at timestamptz not null,
    in_inbox boolean not null,
    read_at timestamptz,
    archived_at timestamptz,
    replaced_by bigint,
    decisions jsonb not null,
    because text,
    xid xid8 not null default pg_current_xact_id()
);

-- cancel, get_event; one notification for an event and a person
create unique index notification_event on tocsin.notification (event_id, recipient_id);
-- list_notifications, inbox_page
create index notification_inbox on tocsin.notification (recipient_id, created_at desc, notification_id desc)
where in_inbox and archived_at is null;
-- inbox_page with filters, mark_all_read, unread_by_category: by type, so that what a
-- person has little of is found at once among many others. The first one is written by each notify(), the second one only
-- when something is read.
create index notification_unread on tocsin.notification (recipient_id, event_type, created_at desc, notification_id desc)
where in_inbox and archived_at is null and read_at is null;
create index notification_read on tocsin.notification (recipient_id, event_type, created_at desc, notification_id desc)
where in_inbox and archived_at is null and read_at is not null;
-- inbox_page of the archive, undo_archive_all
create index notification_archived on tocsin.notification (recipient_id, created_at desc, notification_id desc)
where in_inbox and archived_at is not null;
-- stream_updates: what was committed since a snapshot
create index notification_xid on tocsin.notification (recipient_id, xid);
-- assign_invitations, claim_email, erase_recipient
create index notification_address on tocsin.notification (address) where recipient_id is null;
-- assignable_since
create index notification_pending on tocsin.notification (xid) include (address) where recipient_id is null;
-- mark_read, replace_earlier, group_members, inbox_page with a subject; outside_of_group also those without one
create index notification_subject on tocsin.notification (recipient_id, subject, created_at desc, notification_id desc)
where archived_at is null;
-- clean_up_notifications: those that are over, by the time since when
create index notification_over on tocsin.notification (
    coalesce(read_at, archived_at, case when not in_inbox then created_at end)
)
where read_at is not null or archived_at is not null or not in_inbox;

comment on table tocsin.notification is 'One event for one person: the row of the inbox.';
comment on column tocsin.notification.notification_id is 'Its id.';
comment on column tocsin.notification.event_id is 'Its event.';
comment on column tocsin.notification.recipient_id is 'The person; null for a person without an account whose address nobody has claimed.';
comment on column tocsin.notification.address is 'Address of a person without an account, in the form in which addresses are compared; else null.';
comment on column tocsin.notification.event_type is 'Type of its event.';
comment on column tocsin.notification.subject is 'Subject of its event.';
comment on column tocsin.notification.created_at is 'When it was made.';
comment on column tocsin.notification.in_inbox is 'Whether it is in inbox and badge; false where in_app was off, and after a cancel.';
comment on column tocsin.notification.read_at is 'When the person read it; null: unread.';
comment on column tocsin.notification.archived_at is 'When the person removed it from the inbox.';
comment on column tocsin.notification.replaced_by is 'The event of the same subject that replaced it; null: none did.';
comment on column tocsin.notification.decisions is 'What was decided for each channel: {channel: [decision, reason, scope of the preference]}.';
comment on column tocsin.notification.because is 'Why a person was notified who was not named: followed, replied or mentioned; or why not: muted or not_mentioned.';
comment on column tocsin.notification.xid is 'The transaction that wrote the row, or put it into this person''s inbox.';

create table tocsin.pending_change (
    pending_change_id bigint primary key generated always as identity,
    change text not null check (change in ('withdraw', 'replace', 'read', 'create')),
    subject text,
    event_type text,
    event_id bigint,
    recipient_id text,
    notification_ids bigint[],
    made_at timestamptz not null default clock_timestamp(),
    xid xid8 not null default pg_current_xact_id(),
    horizon xid8
);

comment on table tocsin.pending_change is
'What a call left for the leader to do after its commit, since it could not see or lock the rows; kept while a transaction is open that may commit such a row.';
comment on column tocsin.pending_change.pending_change_id is 'Its id.';
comment on column tocsin.pending_change.change is
'withdraw: cancel the events of the subject; replace: what the event replaces; read: mark as read; create: create the recipient and notify them.';
comment on column tocsin.pending_change.subject is 'withdraw: the subject.';
comment on column tocsin.pending_change.event_type is 'withdraw: events of this type; null: of all types.';
comment on column tocsin.pending_change.event_id is 'replace, create: the event.';
comment on column tocsin.pending_change.recipient_id is 'read, create: the person.';
comment on column tocsin.pending_change.notification_ids is 'read: the notifications; replace: those of the event that replace others, null: all.';
comment on column tocsin.pending_change.made_at is 'When it was made; of a withdrawal, just before its commit: events that were reported later stay.';
comment on column tocsin.pending_change.xid is 'The transaction that made it.';
comment on column tocsin.pending_change.horizon is
'The first transaction id that was not assigned when the leader saw the change: when all before it have ended, the change is over.';

-- == Inbox and badge ==

create table tocsin.action (
    notification_id bigint primary key,
    event_id bigint not null,
    recipient_id text not null,
    key text not null,
    at timestamptz not null default clock_timestamp(),
    seq bigint not null unique
);

comment on table tocsin.action is 'The buttons that people pressed, one for each notification; deleted with it.';
comment on column tocsin.action.notification_id is 'The notification.';
comment on column tocsin.action.event_id is 'Its event.';
comment on column tocsin.action.recipient_id is 'The person.';
comment on column tocsin.action.key is 'The key of the action, as in event.actions.';
comment on column tocsin.action.at is 'When.';
comment on column tocsin.action.seq is 'Its number in the order of the commits, for actions_since().';

create table tocsin.action_counter (
    one boolean primary key default true check (one),
    seq bigint not null
);
insert into tocsin.action_counter (seq) values (0);

comment on table tocsin.action_counter is 'One row, which a press locks until its commit.';
comment on column tocsin.action_counter.one is 'true';
comment on column tocsin.action_counter.seq is 'The last number in tocsin.action.';

create table tocsin.inbox_change (
    recipient_id text not null,
    change text not null check (change in ('read', 'unread', 'archived', 'unarchived', 'acted', 'seen')),
    notification_ids bigint[],
    at timestamptz not null default now(),
    xid xid8 not null default pg_current_xact_id()
);

-- stream_updates
create index inbox_change_recipient on tocsin.inbox_change (recipient_id, xid);
-- scan
create index inbox_change_xid on tocsin.inbox_change (xid) include (recipient_id, change);

comment on table tocsin.inbox_change is 'What people did in their inbox, for their other open streams; kept for an hour.';
comment on column tocsin.inbox_change.recipient_id is 'The person.';
comment on column tocsin.inbox_change.change is 'read, unread, archived, unarchived, acted or seen.';
comment on column tocsin.inbox_change.notification_ids is 'The notifications; null: all.';
comment on column tocsin.inbox_change.at is 'When.';
comment on column tocsin.inbox_change.xid is 'The transaction that did it.';

create table tocsin.unread_counter (
    recipient_id text primary key,
    n integer not null,
    folded_before xid8 not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);

comment on table tocsin.unread_counter is 'Folded counts of unread notifications; the badge is this count and the changes that are not folded yet.';
comment on column tocsin.unread_counter.recipient_id is 'The person.';
comment on column tocsin.unread_counter.n is 'Unread notifications, as far as they are folded.';
comment on column tocsin.unread_counter.folded_before is 'Changes of earlier transactions are all folded.';

create table tocsin.seen_mark (
    recipient_id text primary key references tocsin.recipient on delete cascade,
    snapshot pg_snapshot not null,
    moved_at timestamptz not null
) with (fillfactor = 70);

comment on table tocsin.seen_mark is 'Up to where a person has seen their inbox: unread notifications that the snapshot does not cover are unseen.';
comment on column tocsin.seen_mark.recipient_id is 'The person.';
comment on column tocsin.seen_mark.snapshot is 'The list that the person saw last; it never moves back.';
comment on column tocsin.seen_mark.moved_at is 'When it last moved.';

create table tocsin.unread_delta (
    recipient_id text not null,
    n integer not null,
    xid xid8 not null default pg_current_xact_id()
);

-- unread_count
create index unread_delta_recipient on tocsin.unread_delta (recipient_id, xid) include (n);
-- scan, fold_unread: of the leader alone. The index is partial (a change is never 0), so that a count can't use it: while the
-- table is almost empty it looks as good as the one by recipient, and the plan is kept until a hundred thousand changes are there.
create index unread_delta_unfolded on tocsin.unread_delta (xid) include (recipient_id) where n <> 0;

comment on table tocsin.unread_delta is 'Changes of counts of unread notifications that are not folded yet.';
comment on column tocsin.unread_delta.recipient_id is 'The person.';
comment on column tocsin.unread_delta.n is 'By how much the count changed; never 0.';
comment on column tocsin.unread_delta.xid is 'The transaction that changed it.';

create table tocsin.badge_push_progress (
    only_row boolean primary key default true check (only_row),
    snapshot pg_snapshot not null
);

comment on table tocsin.badge_push_progress is 'One row: how far the leader has asked for silent pushes that correct badges.';
comment on column tocsin.badge_push_progress.only_row is 'Keeps the table to one row.';
comment on column tocsin.badge_push_progress.snapshot is 'What was committed in this snapshot is done, so that the next leader neither omits nor repeats a push.';

insert into tocsin.badge_push_progress (snapshot) values (pg_current_snapshot());

-- == Deliveries ==

create type tocsin.delivery_state as enum (
    'queued',     -- waits in its event's queue (due_at null), in a job's lease (due_at null), or until due_at
    'sending',    -- claimed by a worker, as long as its lease lasts
    'deferred',   -- due again at due_at
    'sent',
    'failed',
    'skipped',
    'cancelled',
    'expired'
);

comment on type tocsin.delivery_state is 'States of a delivery; the first three are not final.';

create table tocsin.delivery (
    delivery_id bigint primary key generated always as identity,
    notification_id bigint,
    event_id bigint,
    recipient_id text,
    channel text not null,
    state tocsin.delivery_state not null default 'queued',
    reason text,
    due_at timestamptz,
    attempts smallint not null default 0,
    claim uuid,
    address text,
    checked_at timestamptz,
    provider_id text,
    created_at timestamptz not null,
    settled_at timestamptz,
    device_id bigint,
    target_id bigint,
    digest_id bigint,
    burst_id bigint,
    expires_at timestamptz,
    -- written by settle(), dispatch_due() and replay(); as a generated column it would cost each insert a thirtieth of notify()
    failed_at timestamptz
)
-- A claim, and the outcome after it, stay on the delivery's page as long as no column of an index changes. So no index has
-- the state or settled_at (a failure has a time of its own), and the page has room for both.
with (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.02);

-- dispatch_event_queues, get_event, cancel
create index delivery_event on tocsin.delivery (event_id, channel, delivery_id);
-- why
create index delivery_notification on tocsin.delivery (notification_id);
-- dispatch_due, next_due
create index delivery_due on tocsin.delivery (channel, due_at) where due_at is not null;
-- claim: the others of a burst
create index delivery_burst on tocsin.delivery (burst_id) where burst_id is not null;
-- delivery_snapshot: what an earlier message of a target is called
create index delivery_target on tocsin.delivery (target_id, delivery_id) where target_id is not null;
-- clean_up_digests, and the fate of a digest
create index delivery_digest on tocsin.delivery (digest_id) where digest_id is not null;
-- digests_at_work
create index delivery_digest_due on tocsin.delivery (digest_id) where digest_id is not null and due_at is not null;
-- dead_letters, dead_letter_reasons: all that they filter and sort by, so that only what is shown is fetched. The push of a
-- badge is not one: the next push corrects it.
create index delivery_failed on tocsin.delivery (failed_at desc, delivery_id desc) include (channel, reason)
where failed_at is not null and coalesce(event_id, digest_id) is not null;
-- queue_badge_pushes: whether one waits for a device; erase_personal_data. In this form, since `event_id is null` would make the planner
-- take delivery_event and read all its null keys for each device.
create index delivery_badge_push on tocsin.delivery (recipient_id, device_id) where coalesce(event_id, digest_id) is null;
-- clean_up_badge_pushes
create index delivery_badge_push_over on tocsin.delivery (created_at) where coalesce(event_id, digest_id) is null;

comment on table tocsin.delivery is 'The ledger: a message on one channel to one address or device. Mostly of one notification; also of a digest, or a silent push that corrects a badge.';
comment on column tocsin.delivery.delivery_id is 'Its id.';
comment on column tocsin.delivery.notification_id is 'Its notification; null for a digest, a badge, and a target of a topic.';
comment on column tocsin.delivery.event_id is 'Event of its notification; null for a digest and a badge.';
comment on column tocsin.delivery.recipient_id is 'The person; null for a person without an account, and for a target of a topic.';
comment on column tocsin.delivery.channel is 'Its channel.';
comment on column tocsin.delivery.state is 'Its state (docs/delivery.md has the transitions).';
comment on column tocsin.delivery.reason is 'Reason of its state.';
comment on column tocsin.delivery.due_at is 'When it is to be dispatched; null while it is in an event queue or a lease, and at its end.';
comment on column tocsin.delivery.attempts is 'Attempts so far, the current one included.';
comment on column tocsin.delivery.claim is 'Token of the worker''s claim that has it, or had it last.';
comment on column tocsin.delivery.address is 'Address or token that the last attempt used; of a target its name, since its address is a secret.';
comment on column tocsin.delivery.checked_at is 'When it was last checked that it may be sent.';
comment on column tocsin.delivery.provider_id is 'Id that the provider gave to the message.';
comment on column tocsin.delivery.created_at is 'When it was queued.';
comment on column tocsin.delivery.settled_at is 'When it reached a final state.';
comment on column tocsin.delivery.device_id is 'Device or browser of a push.';
comment on column tocsin.delivery.target_id is 'Target of a webhook or of a chat.';
comment on column tocsin.delivery.digest_id is 'The digest, if it is one.';
comment on column tocsin.delivery.burst_id is 'First delivery of those that are sent as one message: they stay together at each attempt, under one Message-ID.';
comment on column tocsin.delivery.expires_at is 'After this it is not sent any more; null: as its event.';
comment on column tocsin.delivery.failed_at is 'settled_at of a failed one, for an index.';

create table tocsin.webhook_message (
    delivery_id bigint primary key,
    type text not null,
    at timestamptz not null,
    recipient_id text,
    data jsonb not null
);

-- erase_personal_data
create index webhook_message_recipient on tocsin.webhook_message (recipient_id) where recipient_id is not null;
-- clean_up_webhooks
create index webhook_message_at on tocsin.webhook_message (at);

comment on table tocsin.webhook_message is 'The content of a delivery to an app webhook, the same at each attempt.';
comment on column tocsin.webhook_message.delivery_id is 'The delivery.';
comment on column tocsin.webhook_message.type is 'What happened, such as delivery.failed.';
comment on column tocsin.webhook_message.at is 'When.';
comment on column tocsin.webhook_message.recipient_id is 'The person whom it is about.';
comment on column tocsin.webhook_message.data is 'The data of the message.';

create table tocsin.attempt (
    delivery_id bigint not null,
    attempt smallint not null,
    at timestamptz not null,
    outcome text not null,
    reason text,
    provider text,
    primary key (delivery_id, attempt)
);

comment on table tocsin.attempt is 'Attempts at deliveries.';
comment on column tocsin.attempt.delivery_id is 'The delivery.';
comment on column tocsin.attempt.attempt is 'Its number, from 1; 0 and below: a replay and the attempts before it.';
comment on column tocsin.attempt.at is 'When its outcome was known.';
comment on column tocsin.attempt.outcome is 'sent, deferred, rejected, unknown or replayed.';
comment on column tocsin.attempt.reason is 'Reason of the outcome.';
comment on column tocsin.attempt.provider is 'Who was tried: host and port of the mail server, or the name of another provider; null where it reached none.';

-- No foreign key: a report may name a delivery that was erased.
create table tocsin.mail_event (
    mail_event_id bigint primary key generated always as identity,
    source text not null check (source in ('ses', 'postmark', 'mailgun', 'sendgrid', 'generic', 'dsn')),
    key bytea not null,
    kind text not null check (kind in ('bounce', 'complaint')),
    reason text not null,
    dead boolean not null,
    delivery_id bigint,
    provider_id text,
    address text,
    occurred_at timestamptz not null,
    received_at timestamptz not null default clock_timestamp(),
    applied_at timestamptz,
    effect text check (effect in ('suppressed', 'recorded', 'mass_rejection', 'unknown')),
    unique (source, key)
);

-- why, get_event, and the deletion with a delivery
create index mail_event_delivery on tocsin.mail_event (delivery_id) where delivery_id is not null;
-- apply_mail_events
create index mail_event_open on tocsin.mail_event (mail_event_id) where applied_at is null;
-- discard_mass_bounces, mail_event_counts, clean_up_mail_events
create index mail_event_received on tocsin.mail_event (received_at);

comment on table tocsin.mail_event is 'Reports of mail servers and providers on mails after they were sent: bounces and complaints.';
comment on column tocsin.mail_event.mail_event_id is 'Its id.';
comment on column tocsin.mail_event.source is 'By which call it came: ses, postmark, mailgun, sendgrid, generic or dsn.';
comment on column tocsin.mail_event.key is 'Hash of what identifies the report at its source, so that a repetition is found.';
comment on column tocsin.mail_event.kind is 'bounce or complaint.';
comment on column tocsin.mail_event.reason is 'bounce and its enhanced status code, such as bounce_5.1.1; or complaint.';
comment on column tocsin.mail_event.dead is 'Whether it shows that the address must not be mailed.';
comment on column tocsin.mail_event.delivery_id is 'The delivery of the mail, the first one of a burst; null while or if it is not found.';
comment on column tocsin.mail_event.provider_id is 'The provider''s id of the mail, by which its delivery is found; null where the report has a tag.';
comment on column tocsin.mail_event.address is 'The address that the report names, to find the delivery by provider_id; null once that is over.';
comment on column tocsin.mail_event.occurred_at is 'When it happened, by the report.';
comment on column tocsin.mail_event.received_at is 'When the report came.';
comment on column tocsin.mail_event.applied_at is 'When its effect was decided; null: it waits, at most an hour.';
comment on column tocsin.mail_event.effect is 'suppressed: the address that the delivery went to; recorded: nothing else; mass_rejection: not believed, since most mails came back; unknown: there is no such delivery.';

create table tocsin.event_queue (
    event_id bigint not null,
    channel text not null,
    priority smallint not null,
    dispatched_up_to bigint not null default 0,
    xid xid8 not null default pg_current_xact_id()
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);

-- scan
create index event_queue_xid on tocsin.event_queue (xid);
-- dispatch_event_queues
create index event_queue_event on tocsin.event_queue (event_id, channel);

comment on table tocsin.event_queue is 'Deliveries of an event on one channel of which some have no job yet; the leader deletes the row after the last one.';
comment on column tocsin.event_queue.event_id is 'The event.';
comment on column tocsin.event_queue.channel is 'The channel.';
comment on column tocsin.event_queue.priority is 'Priority of the event type: 0 low, 1 normal, 2 high.';
comment on column tocsin.event_queue.dispatched_up_to is 'Deliveries up to this delivery_id have a job.';
comment on column tocsin.event_queue.xid is 'The transaction that made the row.';

create table tocsin.running_fan_out (
    event_id bigint primary key references tocsin.event on delete cascade,
    after text not null default '',
    as_of timestamptz not null,
    fanned_out integer not null default 0,
    total integer not null,
    turn_at timestamptz not null default clock_timestamp()
);

comment on table tocsin.running_fan_out is 'Events that the leader fans out in slices, since they are for too many people for one transaction (docs/adr/0091-large-fan-outs.md).';
comment on column tocsin.running_fan_out.event_id is 'The event.';
comment on column tocsin.running_fan_out.after is 'Id of the last person that was handled: people are handled in the order of their ids.';
comment on column tocsin.running_fan_out.as_of is 'It is for those who followed the topic at this time, and still do when their slice is written.';
comment on column tocsin.running_fan_out.fanned_out is 'How many people were notified so far.';
comment on column tocsin.running_fan_out.total is 'How many people will be notified, as far as known.';
comment on column tocsin.running_fan_out.turn_at is 'The fan-out whose time is the earliest has the next slice: the time of its last slice, or ten seconds after one that failed.';

create table tocsin.lease (
    lease_id bigint generated always as identity primary key,
    channel text not null,
    claim uuid unique,
    process_id uuid,
    delivery_ids bigint[] not null,
    until timestamptz not null,
    limited boolean not null default false
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);

-- end_leases, next_due
create index lease_until on tocsin.lease (until);
-- close_leases: that of a job
create index lease_job on tocsin.lease ((delivery_ids[1])) where claim is null;

comment on table tocsin.lease is 'Deliveries at work: made into a job, or claimed by a worker (docs/adr/0024-leases.md). Each delivery that is not at its end is in an event queue, in a lease, or has a due_at.';
comment on column tocsin.lease.lease_id is 'Its id.';
comment on column tocsin.lease.channel is 'Channel of the deliveries.';
comment on column tocsin.lease.claim is 'Token of the worker''s claim; null for a job.';
comment on column tocsin.lease.process_id is 'The process that holds the claim; null for a job.';
comment on column tocsin.lease.delivery_ids is 'The deliveries.';
comment on column tocsin.lease.until is 'Deliveries that are still held then are due again.';
comment on column tocsin.lease.limited is 'Whether the limits of messages to one person were applied to the claim, so that what it is sending counts.';

create table tocsin.settled_batch (
    settled_at timestamptz not null,
    delivery_ids bigint[] not null
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);

-- settled_between, delete_settled_batches
create index settled_batch_settled_at on tocsin.settled_batch (settled_at);

comment on table tocsin.settled_batch is 'Deliveries by the time at which they reached a final state, many in a row: so that no index has delivery.settled_at.';
comment on column tocsin.settled_batch.settled_at is 'When they did.';
comment on column tocsin.settled_batch.delivery_ids is 'The deliveries.';

create table tocsin.joined_message (
    recipient_id text not null references tocsin.recipient on delete cascade,
    channel text not null,
    device_id bigint,
    event_type text,
    subject text,
    burst_id bigint not null,
    due_at timestamptz not null,
    deliveries integer not null,
    created_at timestamptz not null default clock_timestamp(),
    unique nulls not distinct (recipient_id, channel, device_id, event_type, subject)
);

-- throttled_apps, clean_up_joined_messages
create index joined_message_due on tocsin.joined_message (due_at);

comment on table tocsin.joined_message is 'Messages that were made of what was beyond a limit: the one that waits, or the last one, for each person and limit.';
comment on column tocsin.joined_message.recipient_id is 'The person.';
comment on column tocsin.joined_message.channel is 'The channel.';
comment on column tocsin.joined_message.device_id is 'The device of pushes.';
comment on column tocsin.joined_message.event_type is 'The event type whose throttle it is; null: the cap of all messages in an hour.';
comment on column tocsin.joined_message.subject is 'The subject for which the throttle counts.';
comment on column tocsin.joined_message.burst_id is 'burst_id of its deliveries.';
comment on column tocsin.joined_message.due_at is 'When it is due.';
comment on column tocsin.joined_message.deliveries is 'How many deliveries were joined.';
comment on column tocsin.joined_message.created_at is 'When the limit was reached first.';

create table tocsin.throttle_lock (
    slot integer primary key
);

comment on table tocsin.throttle_lock is 'Rows that workers lock while they count the messages of people, who share 256 of them.';
comment on column tocsin.throttle_lock.slot is 'The last 8 bits of the hash of the person''s id.';

create table tocsin.digest (
    digest_id bigint primary key generated always as identity,
    recipient_id text not null,
    frequency text not null,
    due_at timestamptz not null,
    created_at timestamptz not null default clock_timestamp(),
    unique (recipient_id, due_at)
);

-- clean_up_digests
create index digest_created_at on tocsin.digest (created_at);

comment on table tocsin.digest is 'Summary mails: at most one for a person and a period.';
comment on column tocsin.digest.digest_id is 'Its id.';
comment on column tocsin.digest.recipient_id is 'The person.';
comment on column tocsin.digest.frequency is 'Frequency at that time: daily, weekly, or off for the last one.';
comment on column tocsin.digest.due_at is 'When it was due.';
comment on column tocsin.digest.created_at is 'When it was made.';

create table tocsin.digest_item (
    notification_id bigint primary key,
    recipient_id text not null,
    digest_id bigint
) with (autovacuum_vacuum_scale_factor = 0.02);

-- assemble_digests
create index digest_item_waiting on tocsin.digest_item (recipient_id) where digest_id is null;
-- digest_entries
create index digest_item_digest on tocsin.digest_item (digest_id) where digest_id is not null;

comment on table tocsin.digest_item is 'Notifications that wait for a digest or are in one; each is in one at most.';
comment on column tocsin.digest_item.notification_id is 'The notification.';
comment on column tocsin.digest_item.recipient_id is 'The person.';
comment on column tocsin.digest_item.digest_id is 'The digest; null: it waits for the next one.';

-- == Operation ==

create table tocsin.delivery_minute (
    minute timestamptz not null,
    channel text not null,
    state tocsin.delivery_state not null,
    reason text not null,
    took smallint not null,
    n integer not null,
    primary key (minute, channel, state, reason, took)
);

comment on table tocsin.delivery_minute is 'The ledger by the minute, kept for two days, for the operations page.';
comment on column tocsin.delivery_minute.minute is 'Start of the minute.';
comment on column tocsin.delivery_minute.channel is 'The channel.';
comment on column tocsin.delivery_minute.state is 'The state.';
comment on column tocsin.delivery_minute.reason is 'The reason; empty: none.';
comment on column tocsin.delivery_minute.took is 'Class of the latency of what was sent (tocsin.latency_class); -1 where there is none.';
comment on column tocsin.delivery_minute.n is 'Of a final state: deliveries that reached it in that minute. Of others: deliveries in it at the minute''s end, as far as they were counted.';

create table tocsin.delivery_minute_progress (
    only_row boolean primary key default true check (only_row),
    upto timestamptz not null
);

comment on table tocsin.delivery_minute_progress is 'One row: how far tocsin.delivery_minute is filled.';
comment on column tocsin.delivery_minute_progress.only_row is 'Keeps the table to one row.';
comment on column tocsin.delivery_minute_progress.upto is 'Minutes before this are filled.';

insert into tocsin.delivery_minute_progress (upto) values (date_trunc('minute', now()) - interval '1 day');

create unlogged table tocsin.process (
    process_id uuid primary key,
    kind text not null check (kind in ('worker', 'serve')),
    host text not null,
    pid integer not null,
    version text not null,
    started_at timestamptz not null,
    reported_at timestamptz not null,
    report jsonb not null
)
with (fillfactor = 50);

comment on table tocsin.process is 'Running processes, each with its last report. Unlogged: a report is out of date within seconds, so a crash of the server may lose it.';
comment on column tocsin.process.process_id is 'Random id that the process chose at its start.';
comment on column tocsin.process.kind is 'worker or serve.';
comment on column tocsin.process.host is 'Name of its host.';
comment on column tocsin.process.pid is 'Its process id on that host.';
comment on column tocsin.process.version is 'Version of Tocsin.';
comment on column tocsin.process.started_at is 'When it started.';
comment on column tocsin.process.reported_at is 'When it last reported.';
comment on column tocsin.process.report is 'Its actors, its open streams, and whether it leads.';

create unlogged table tocsin.send_rate (
    channel text primary key,
    next_slot_at timestamptz not null
)
with (fillfactor = 50);

comment on table tocsin.send_rate is 'Slots of the channels that have a rate (TOCSIN_SEND_RATES), which all workers share. Unlogged: after a crash of the server the slots start at now again.';
comment on column tocsin.send_rate.channel is 'The channel.';
comment on column tocsin.send_rate.next_slot_at is 'The time of the first slot that no worker has taken.';

create unlogged table tocsin.send_hold (
    key text primary key,
    reason text not null,
    until timestamptz not null
);

comment on table tocsin.send_hold is 'Pauses that providers asked for, which hold for all workers. Unlogged: after a crash of the server the provider asks again.';
comment on column tocsin.send_hold.key is 'An actor, or one target of it, whose address is hashed.';
comment on column tocsin.send_hold.reason is 'The response that asked for it.';
comment on column tocsin.send_hold.until is 'Its end.';

create table tocsin.leader (
    only_row boolean primary key default true check (only_row),
    backend_pid integer,
    backend_start timestamptz,
    heartbeat_at timestamptz not null default '-infinity',
    reached_at timestamptz not null default '-infinity',
    outage_ended_at timestamptz not null default '-infinity'
) with (fillfactor = 50);

comment on table tocsin.leader is 'One row: the process that listens and dispatches for all (docs/adr/0028-leader-row.md), and the last outage of the database.';
comment on column tocsin.leader.only_row is 'Keeps the table to one row.';
comment on column tocsin.leader.backend_pid is 'PostgreSQL''s process id of the session that the leader listens with; null before the first election.';
comment on column tocsin.leader.backend_start is 'When that session started.';
comment on column tocsin.leader.heartbeat_at is 'When the leader last wrote here; it does every few seconds.';
comment on column tocsin.leader.reached_at is 'When a process last reached the database; at most a second ago while one does.';
comment on column tocsin.leader.outage_ended_at is 'When a process reached the database again after no process could (docs/adr/0029-leases-survive-outages.md).';

insert into tocsin.leader default values;

create table tocsin.erasure (
    erasure_id bigint generated always as identity primary key,
    recipient_id text,
    addresses text[] not null,
    erased_at timestamptz not null,
    open_transactions text[]
);

comment on table tocsin.erasure is 'People who were erased while other transactions were open: what these still commit is erased afterwards.';
comment on column tocsin.erasure.erasure_id is 'Its id.';
comment on column tocsin.erasure.recipient_id is 'The person; null: an address without an account.';
comment on column tocsin.erasure.addresses is 'All addresses of the person, in the form in which addresses are compared.';
comment on column tocsin.erasure.erased_at is 'When.';
comment on column tocsin.erasure.open_transactions is 'Transactions (as in pg_locks.virtualxid) that began before the erasure was committed; null: not listed yet.';

-- == Import ==

create table tocsin.imported (
    source text not null check (length(source) between 1 and 200),
    key text not null check (length(key) between 1 and 200),
    event_id bigint not null,
    imported_at timestamptz not null default now(),
    primary key (source, key)
);

comment on table tocsin.imported is 'Notifications that were imported, by their ids in the system they came from. Kept, so that what was erased or cleaned up is not imported again.';
comment on column tocsin.imported.source is 'Where they came from, such as django-notifications.';
comment on column tocsin.imported.key is 'The id there.';
comment on column tocsin.imported.event_id is 'The event that was made of it.';
comment on column tocsin.imported.imported_at is 'When it was imported.';

-- == Keys and secrets ==

create table tocsin.api_key (
    api_key_id bigint primary key generated always as identity,
    name text not null check (length(name) between 1 and 100),
    hash bytea not null unique,
    prefix text check (length(prefix) between 1 and 20),
    scopes text[] not null,
    event_types text[] check (cardinality(event_types) between 1 and 100),
    created_at timestamptz not null default now(),
    last_used_at timestamptz,
    revoked_at timestamptz
);

comment on table tocsin.api_key is 'API keys of apps and operators.';
comment on column tocsin.api_key.api_key_id is 'Its id.';
comment on column tocsin.api_key.name is 'Name that the operator gave it.';
comment on column tocsin.api_key.hash is 'SHA-256 of the key.';
comment on column tocsin.api_key.prefix is 'First characters of the key, to recognise it by.';
comment on column tocsin.api_key.scopes is 'What it may be used for, such as events:write.';
comment on column tocsin.api_key.event_types is 'Patterns of the event types that it may write and read; null: all.';
comment on column tocsin.api_key.created_at is 'When it was made.';
comment on column tocsin.api_key.last_used_at is 'When it was last used, to about a minute.';
comment on column tocsin.api_key.revoked_at is 'When it was revoked.';

create table tocsin.ops_session (
    hash bytea primary key,
    api_key_id bigint not null references tocsin.api_key on delete cascade,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null
);

comment on table tocsin.ops_session is 'Operators who are signed in to the operations page with an API key of the scope ops.';
comment on column tocsin.ops_session.hash is 'SHA-256 of the session''s cookie.';
comment on column tocsin.ops_session.api_key_id is 'The API key; the session ends with it.';
comment on column tocsin.ops_session.created_at is 'When the operator signed in.';
comment on column tocsin.ops_session.expires_at is 'When it ends.';

create table tocsin.stream_ticket (
    hash bytea primary key,
    recipient_id text not null,
    expires_at timestamptz not null,
    usable_until timestamptz not null,
    in_use_until timestamptz
);

comment on table tocsin.stream_ticket is 'Tickets by which an EventSource, which can''t send headers, opens a stream; one stream at a time.';
comment on column tocsin.stream_ticket.hash is 'SHA-256 of the ticket.';
comment on column tocsin.stream_ticket.recipient_id is 'The person.';
comment on column tocsin.stream_ticket.expires_at is 'When the JWT expires by which it was made, and with it the ticket.';
comment on column tocsin.stream_ticket.usable_until is 'Until when a stream may be opened with it.';
comment on column tocsin.stream_ticket.in_use_until is 'Until when its open stream holds it, which renews this; null: no stream is open.';

create table tocsin.provider_token (
    key text primary key,
    token text not null,
    issued_at bigint not null,
    early boolean not null
);

comment on table tocsin.provider_token is 'Tokens by which APNs knows the installation, shared by all workers, since Apple limits how often they change.';
comment on column tocsin.provider_token.key is 'Team id, key id and a hash of the public key.';
comment on column tocsin.provider_token.token is 'The signed JWT.';
comment on column tocsin.provider_token.issued_at is 'When it was signed, in seconds since 1970.';
comment on column tocsin.provider_token.early is 'Whether it replaced one that Apple refused before its time.';

create table tocsin.secret (
    name text primary key,
    value bytea not null
);

comment on table tocsin.secret is 'Secrets of this installation.';
comment on column tocsin.secret.name is 'link_key: signs the links in mails. address_key: hashes addresses.';
comment on column tocsin.secret.value is 'The secret; of address_key the inner and the outer pad of HMAC-SHA256 (RFC 2104), 64 bytes each.';

insert into tocsin.secret (name, value)
values ('link_key', decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));

insert into tocsin.secret (name, value)
select
    'address_key',
    string_agg(set_byte('\x00', 0, get_byte(k.key, i) # 54), ''::bytea order by i)
        || string_agg(set_byte('\x00', 0, get_byte(k.key, i) # 92), ''::bytea order by i)
from (
    select decode(
        replace(gen_random_uuid()::text || gen_random_uuid() || gen_random_uuid() || gen_random_uuid(), '-', ''),
        'hex'
    ) as key
    offset 0
) k
cross join generate_series(0, 63) i;

-- A publication for all tables refuses to update or delete rows of a table that has no primary key, unless the whole row
-- identifies itself. A primary key would be one more index to write in each notify(); this costs nothing where nothing
-- is published.
alter table tocsin.settled_batch replica identity full;
alter table tocsin.inbox_change replica identity full;
alter table tocsin.event_queue replica identity full;
alter table tocsin.unread_delta replica identity full;
alter table tocsin.joined_message replica identity full;
