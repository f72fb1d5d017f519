-- name: notify
-- Tells an event in the caller's transaction; answers its id.
select tocsin.notify(
    event_type => $1,
    recipients => $2::text[],
    title => $3,
    body => $4,
    action_url => $5,
    metadata => $6::jsonb,
    initiator => $7,
    idempotency_key => $8,
    body_html => $9,
    send_at => $10::timestamptz
);

-- name: notify_one
-- The same for one person.
select tocsin.notify(
    event_type => $1,
    recipients => array[$2::text],
    title => $3,
    body => $4,
    action_url => $5,
    metadata => $6::jsonb,
    initiator => $7,
    idempotency_key => $8,
    body_html => $9,
    send_at => $10::timestamptz
);

-- name: notify_topic
-- Tells an event to the followers of a topic in the caller's transaction; answers its id.
select tocsin.notify_topic(
    topic => $1,
    event_type => $2,
    title => $3,
    body => $4,
    action_url => $5,
    metadata => $6::jsonb,
    initiator => $7,
    idempotency_key => $8,
    body_html => $9,
    send_at => $10::timestamptz,
    subscribe_initiator => $11
);

-- name: subscribe
-- Has a person follow a topic; true where that changed something.
select tocsin.subscribe($1, $2, $3);

-- name: unsubscribe
-- Has a person follow a topic no more; true where that changed something.
select tocsin.unsubscribe($1, $2);

-- name: notify_email
-- Tells an event to somebody by an address; answers its id.
select tocsin.notify_email(
    email => $1,
    event_type => $2,
    title => $3,
    body => $4,
    action_url => $5,
    metadata => $6::jsonb,
    initiator => $7,
    idempotency_key => $8,
    body_html => $9,
    send_at => $10::timestamptz
);

-- name: claim_email
-- Says whose an address is; answers how many notifications became theirs.
select tocsin.claim_email(email => $1, recipient => $2);

-- name: cancel
-- Takes an event back; answers how many deliveries stopped.
select tocsin.cancel($1::bigint);

-- name: upsert_recipient
-- Creates a person or changes what is not null.
select tocsin.upsert_recipient(
    id => $1,
    email => $2,
    name => $3,
    locale => $4,
    timezone => $5
);

-- name: unread_count
-- A person's badge.
select tocsin.unread_count($1);
