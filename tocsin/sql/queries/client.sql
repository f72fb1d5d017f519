-- name: notify
-- Tells an event in the caller's transaction; answers its id.
select tocsin.notify(
    event_type => :event_type,
    recipients => :recipients::text[],
    title => :title,
    body => :body,
    action_url => :action_url,
    metadata => :metadata::jsonb,
    initiator => :initiator,
    idempotency_key => :idempotency_key,
    body_html => :body_html,
    send_at => :send_at::timestamptz
);

-- name: notify_topic
-- Tells an event to the followers of a topic in the caller's transaction; answers its id.
select tocsin.notify_topic(
    topic => :topic,
    event_type => :event_type,
    title => :title,
    body => :body,
    action_url => :action_url,
    metadata => :metadata::jsonb,
    initiator => :initiator,
    idempotency_key => :idempotency_key,
    body_html => :body_html,
    send_at => :send_at::timestamptz,
    subscribe_initiator => :subscribe_initiator
);

-- name: subscribe
-- Has a person follow a topic; true where that changed something.
select tocsin.subscribe(:recipient, :topic, :level);

-- name: unsubscribe
-- Has a person follow a topic no more; true where that changed something.
select tocsin.unsubscribe(:recipient, :topic);

-- name: notify_email
-- Tells an event to somebody by an address; answers its id.
select tocsin.notify_email(
    email => :email,
    event_type => :event_type,
    title => :title,
    body => :body,
    action_url => :action_url,
    metadata => :metadata::jsonb,
    initiator => :initiator,
    idempotency_key => :idempotency_key,
    body_html => :body_html,
    send_at => :send_at::timestamptz
);

-- name: claim_email
-- Says whose an address is; answers how many notifications became theirs.
select tocsin.claim_email(email => :email, recipient => :recipient);

-- name: cancel
-- Takes an event back; answers how many deliveries stopped.
select tocsin.cancel(:event_id::bigint);

-- name: upsert_recipient
-- Creates a person or changes what is not null.
select tocsin.upsert_recipient(
    id => :id,
    email => :email,
    name => :name,
    locale => :locale,
    timezone => :timezone
);

-- name: unread_count
-- A person's badge.
select tocsin.unread_count(:recipient);
