-- name: notify
-- Creates an event for recipients in the caller's transaction; returns its id.
select tocsin.notify(
    event_type => $1,
    recipients => $2::text[],
    title => $3,
    body => $4,
    action_url => $5,
    metadata => $6::text::jsonb,
    initiator => $7,
    idempotency_key => $8,
    body_html => $9,
    send_at => $10::timestamptz,
    subject => $11,
    replaces => $12,
    content => $13::text::jsonb,
    actions => $14::text::jsonb,
    unknown => $15
);

-- name: notify_traced
-- The same as a part of the trace of $1; afterwards the setting is as before.
with before as materialized (
    select coalesce(current_setting('tocsin.traceparent', true), '') as value
),
given as materialized (
    select set_config('tocsin.traceparent', $1, true)
    from before
),
notified as materialized (
    select tocsin.notify(
        event_type => $2,
        recipients => $3::text[],
        title => $4,
        body => $5,
        action_url => $6,
        metadata => $7::text::jsonb,
        initiator => $8,
        idempotency_key => $9,
        body_html => $10,
        send_at => $11::timestamptz,
        subject => $12,
        replaces => $13,
        content => $14::text::jsonb,
        actions => $15::text::jsonb,
        unknown => $16
    ) as event_id
    from given
),
restored as materialized (
    select set_config('tocsin.traceparent', b.value, true)
    from before b
    cross join notified
)
select n.event_id
from notified n
cross join restored;

-- name: notify_one
-- The same for one person.
select tocsin.notify(
    event_type => $1,
    recipients => array[$2::text],
    title => $3,
    body => $4,
    action_url => $5,
    metadata => $6::text::jsonb,
    initiator => $7,
    idempotency_key => $8,
    body_html => $9,
    send_at => $10::timestamptz,
    subject => $11,
    replaces => $12,
    content => $13::text::jsonb,
    actions => $14::text::jsonb,
    unknown => $15
);

-- name: notify_one_plain
-- The same without the options that few calls use: each parameter takes 1 % of a call.
select tocsin.notify(
    event_type => $1,
    recipients => array[$2::text],
    title => $3,
    body => $4,
    action_url => $5,
    metadata => $6::text::jsonb,
    initiator => $7,
    idempotency_key => $8,
    body_html => $9,
    send_at => $10::timestamptz
);

-- name: notify_topic
-- Creates an event for the followers of a topic in the caller's transaction; returns its id.
select tocsin.notify_topic(
    topic => $1,
    event_type => $2,
    title => $3,
    body => $4,
    action_url => $5,
    metadata => $6::text::jsonb,
    initiator => $7,
    idempotency_key => $8,
    body_html => $9,
    send_at => $10::timestamptz,
    subject => $11,
    replaces => $12,
    content => $13::text::jsonb,
    actions => $14::text::jsonb,
    unknown => $15,
    subscribe_initiator => $16
);

-- name: notify_topic_traced
-- The same as a part of the trace of $1; afterwards the setting is as before.
with before as materialized (
    select coalesce(current_setting('tocsin.traceparent', true), '') as value
),
given as materialized (
    select set_config('tocsin.traceparent', $1, true)
    from before
),
notified as materialized (
    select tocsin.notify_topic(
        topic => $2,
        event_type => $3,
        title => $4,
        body => $5,
        action_url => $6,
        metadata => $7::text::jsonb,
        initiator => $8,
        idempotency_key => $9,
        body_html => $10,
        send_at => $11::timestamptz,
        subject => $12,
        replaces => $13,
        content => $14::text::jsonb,
        actions => $15::text::jsonb,
        unknown => $16,
        subscribe_initiator => $17
    ) as event_id
    from given
),
restored as materialized (
    select set_config('tocsin.traceparent', b.value, true)
    from before b
    cross join notified
)
select n.event_id
from notified n
cross join restored;

-- name: subscribe
-- Subscribes a person to a topic; returns whether that changed something.
select tocsin.subscribe($1, $2, $3);

-- name: unsubscribe
-- Removes a person's subscription to a topic; returns whether there was one.
select tocsin.unsubscribe($1, $2);

-- name: notify_email
-- Creates an event for an address in the caller's transaction; returns its id.
select tocsin.notify_email(
    email => $1,
    event_type => $2,
    title => $3,
    body => $4,
    action_url => $5,
    metadata => $6::text::jsonb,
    initiator => $7,
    idempotency_key => $8,
    body_html => $9,
    send_at => $10::timestamptz,
    subject => $11,
    replaces => $12,
    content => $13::text::jsonb,
    actions => $14::text::jsonb,
    unknown => $15
);

-- name: notify_email_traced
-- The same as a part of the trace of $1; afterwards the setting is as before.
with before as materialized (
    select coalesce(current_setting('tocsin.traceparent', true), '') as value
),
given as materialized (
    select set_config('tocsin.traceparent', $1, true)
    from before
),
notified as materialized (
    select tocsin.notify_email(
        email => $2,
        event_type => $3,
        title => $4,
        body => $5,
        action_url => $6,
        metadata => $7::text::jsonb,
        initiator => $8,
        idempotency_key => $9,
        body_html => $10,
        send_at => $11::timestamptz,
        subject => $12,
        replaces => $13,
        content => $14::text::jsonb,
        actions => $15::text::jsonb,
        unknown => $16
    ) as event_id
    from given
),
restored as materialized (
    select set_config('tocsin.traceparent', b.value, true)
    from before b
    cross join notified
)
select n.event_id
from notified n
cross join restored;

-- name: claim_email
-- Assigns an address to a recipient; returns how many notifications came into their inbox.
select tocsin.claim_email(email => $1, recipient => $2);

-- name: cancel
-- Cancels an event; returns how many deliveries were stopped.
select tocsin.cancel($1::bigint);

-- name: withdraw
-- Cancels the events of a subject; returns how many.
select tocsin.withdraw($1, $2);

-- name: mark_read
-- Marks what is about a subject as read; returns how many.
select tocsin.mark_read($1, $2::text);

-- name: upsert_recipient
-- Creates a recipient or changes what is not null.
select tocsin.upsert_recipient(
    id => $1,
    email => $2,
    name => $3,
    locale => $4,
    timezone => $5,
    avatar_url => $6
);

-- name: unread_count
-- A person's badge.
select tocsin.unread_count($1);

-- name: erase_recipient
-- Erases a person; returns whether they were known.
select tocsin.erase_recipient($1);

-- name: register_push_token
-- Registers a phone of a person; returns its id.
select tocsin.register_push_token(
    recipient => $1,
    token => $2,
    platform => $3,
    provider => $4,
    environment => $5
);
