-- Made by `make schema` from the migrations; do not edit.

CREATE SCHEMA tocsin;

CREATE TYPE tocsin.delivery_state AS ENUM (
    'queued',
    'sending',
    'deferred',
    'sent',
    'failed',
    'skipped',
    'cancelled',
    'expired'
);

CREATE TABLE tocsin.event (
    event_id bigint NOT NULL,
    event_type text NOT NULL,
    title text NOT NULL,
    body text NOT NULL,
    body_html text,
    action_url text,
    metadata jsonb NOT NULL,
    initiator text,
    initiator_skipped boolean DEFAULT false NOT NULL,
    caller text NOT NULL,
    send_at timestamp with time zone,
    recipients text[],
    created_at timestamp with time zone NOT NULL,
    told_at timestamp with time zone,
    expires_at timestamp with time zone,
    cancelled_at timestamp with time zone,
    topic text,
    email text,
    subscribe_initiator boolean DEFAULT false NOT NULL
);

CREATE TABLE tocsin.event_type (
    event_type text NOT NULL,
    category text NOT NULL,
    label text NOT NULL,
    "position" smallint NOT NULL,
    default_channels text[] NOT NULL,
    mandatory_channels text[] DEFAULT '{}'::text[] NOT NULL,
    priority smallint DEFAULT 1 NOT NULL,
    time_to_live interval DEFAULT '3 days'::interval NOT NULL,
    max_attempts smallint DEFAULT 10 NOT NULL,
    allows_digest boolean DEFAULT true NOT NULL,
    retired_at timestamp with time zone,
    delays jsonb DEFAULT '{}'::jsonb NOT NULL,
    skip_if_read text[] DEFAULT '{}'::text[] NOT NULL,
    alone boolean DEFAULT false NOT NULL,
    mention boolean DEFAULT false NOT NULL,
    usual jsonb,
    CONSTRAINT event_type_event_type_check CHECK ((event_type ~ '^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$'::text)),
    CONSTRAINT event_type_max_attempts_check CHECK (((max_attempts >= 1) AND (max_attempts <= 50))),
    CONSTRAINT event_type_priority_check CHECK (((priority >= 0) AND (priority <= 2))),
    CONSTRAINT event_type_time_to_live_check CHECK ((time_to_live > '00:00:00'::interval))
);

CREATE TABLE tocsin.delivery (
    delivery_id bigint NOT NULL,
    notification_id bigint,
    event_id bigint,
    recipient_id text,
    channel text NOT NULL,
    state tocsin.delivery_state DEFAULT 'queued'::tocsin.delivery_state NOT NULL,
    reason text,
    due_at timestamp with time zone,
    attempts smallint DEFAULT 0 NOT NULL,
    claim uuid,
    address text,
    checked_at timestamp with time zone,
    provider_id text,
    created_at timestamp with time zone NOT NULL,
    settled_at timestamp with time zone,
    device_id bigint,
    digest_id bigint,
    burst_id bigint,
    expires_at timestamp with time zone,
    failed_at timestamp with time zone GENERATED ALWAYS AS (
CASE
    WHEN (state = 'failed'::tocsin.delivery_state) THEN settled_at
    ELSE NULL::timestamp with time zone
END) STORED
)
WITH (autovacuum_vacuum_scale_factor='0.02', fillfactor='45');

CREATE TABLE tocsin.digest_preference (
    recipient_id text NOT NULL,
    frequency text NOT NULL,
    categories text[],
    send_at time without time zone DEFAULT '06:00:00'::time without time zone NOT NULL,
    timezone text,
    weekday smallint DEFAULT 1 NOT NULL,
    next_at timestamp with time zone,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    unsubscribed boolean DEFAULT false NOT NULL,
    CONSTRAINT digest_preference_frequency_check CHECK ((frequency = ANY (ARRAY['off'::text, 'daily'::text, 'weekly'::text]))),
    CONSTRAINT digest_preference_weekday_check CHECK (((weekday >= 1) AND (weekday <= 7)))
);

CREATE TABLE tocsin.quiet_hours (
    recipient_id text NOT NULL,
    starts time without time zone NOT NULL,
    ends time without time zone NOT NULL,
    timezone text,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT quiet_hours_check CHECK ((ends <> starts))
);

CREATE TABLE tocsin.api_key (
    api_key_id bigint NOT NULL,
    name text NOT NULL,
    scopes text[] NOT NULL,
    hash bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    last_used_at timestamp with time zone,
    revoked_at timestamp with time zone,
    event_types text[],
    prefix text,
    CONSTRAINT api_key_event_types_check CHECK (((cardinality(event_types) >= 1) AND (cardinality(event_types) <= 100))),
    CONSTRAINT api_key_name_check CHECK (((length(name) >= 1) AND (length(name) <= 100))),
    CONSTRAINT api_key_prefix_check CHECK (((length(prefix) >= 1) AND (length(prefix) <= 20)))
);

ALTER TABLE tocsin.api_key ALTER COLUMN api_key_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME tocsin.api_key_api_key_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE tocsin.attempt (
    delivery_id bigint NOT NULL,
    attempt smallint NOT NULL,
    at timestamp with time zone NOT NULL,
    outcome text NOT NULL,
    reason text
);

CREATE TABLE tocsin.badge_mark (
    one boolean DEFAULT true NOT NULL,
    snapshot pg_snapshot NOT NULL,
    CONSTRAINT badge_mark_one_check CHECK (one)
);

CREATE TABLE tocsin.category (
    category text NOT NULL,
    label text NOT NULL,
    "position" smallint NOT NULL,
    CONSTRAINT category_category_check CHECK ((category ~ '^[a-z][a-z0-9_]*$'::text))
);

CREATE TABLE tocsin.channel (
    channel text NOT NULL,
    "position" smallint NOT NULL,
    available boolean NOT NULL,
    task text,
    CONSTRAINT channel_channel_check CHECK ((channel ~ '^[a-z][a-z0-9_]*$'::text))
);

CREATE TABLE tocsin.claim (
    address text NOT NULL,
    recipient_id text NOT NULL,
    claimed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL
);

ALTER TABLE tocsin.delivery ALTER COLUMN delivery_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME tocsin.delivery_delivery_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE tocsin.delivery_minute (
    minute timestamp with time zone NOT NULL,
    channel text NOT NULL,
    state tocsin.delivery_state NOT NULL,
    reason text NOT NULL,
    took smallint NOT NULL,
    n integer NOT NULL
);

CREATE TABLE tocsin.delivery_minute_mark (
    one boolean DEFAULT true NOT NULL,
    upto timestamp with time zone NOT NULL,
    CONSTRAINT delivery_minute_mark_one_check CHECK (one)
);

CREATE TABLE tocsin.device (
    device_id bigint NOT NULL,
    token text NOT NULL,
    recipient_id text NOT NULL,
    platform text NOT NULL,
    provider text NOT NULL,
    environment text DEFAULT 'production'::text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    registered_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    disabled_at timestamp with time zone,
    disabled_reason text,
    label text,
    CONSTRAINT device_environment_check CHECK ((environment = ANY (ARRAY['production'::text, 'sandbox'::text]))),
    CONSTRAINT device_label_check CHECK (((length(label) >= 1) AND (length(label) <= 100))),
    CONSTRAINT device_platform_check CHECK ((platform = ANY (ARRAY['ios'::text, 'android'::text]))),
    CONSTRAINT device_provider_check CHECK ((provider = ANY (ARRAY['apns'::text, 'fcm'::text]))),
    CONSTRAINT device_token_check CHECK (((length(token) >= 1) AND (length(token) <= 4096)))
);

ALTER TABLE tocsin.device ALTER COLUMN device_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME tocsin.device_device_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE tocsin.digest (
    digest_id bigint NOT NULL,
    recipient_id text NOT NULL,
    frequency text NOT NULL,
    due_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

ALTER TABLE tocsin.digest ALTER COLUMN digest_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME tocsin.digest_digest_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE tocsin.digest_item (
    notification_id bigint NOT NULL,
    recipient_id text NOT NULL,
    digest_id bigint
)
WITH (autovacuum_vacuum_scale_factor='0.02');

CREATE TABLE tocsin.notification (
    notification_id bigint NOT NULL,
    event_id bigint NOT NULL,
    recipient_id text,
    event_type text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    in_inbox boolean NOT NULL,
    read_at timestamp with time zone,
    archived_at timestamp with time zone,
    decisions jsonb NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    because text,
    address text,
    CONSTRAINT notification_somebodys CHECK (((recipient_id IS NOT NULL) OR (address IS NOT NULL)))
);

CREATE TABLE tocsin.preference (
    recipient_id text NOT NULL,
    scope text NOT NULL,
    channel text NOT NULL,
    enabled boolean NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE tocsin.subscription (
    topic text NOT NULL,
    recipient_id text NOT NULL,
    event_id bigint DEFAULT 0 NOT NULL,
    subscription_id bigint NOT NULL,
    level text NOT NULL,
    because text NOT NULL,
    level_before text,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT subscription_because_check CHECK ((because = ANY (ARRAY['followed'::text, 'replied'::text]))),
    CONSTRAINT subscription_level_check CHECK ((level = ANY (ARRAY['all'::text, 'mentions'::text, 'muted'::text])))
);

CREATE VIEW tocsin.digest_entry AS
 SELECT i.digest_id,
    i.recipient_id,
    n.notification_id,
    n.event_id,
    n.event_type,
    n.created_at,
    ((n.read_at IS NOT NULL) OR (n.archived_at IS NOT NULL)) AS read,
    e.title,
    e.body,
    e.body_html,
    e.action_url,
    e.metadata,
    e.initiator,
    t.label,
    c.category,
    c.label AS category_label,
    c."position" AS category_position
   FROM ((((tocsin.digest_item i
     JOIN tocsin.notification n USING (notification_id))
     JOIN tocsin.event e USING (event_id))
     JOIN tocsin.event_type t ON ((t.event_type = n.event_type)))
     JOIN tocsin.category c USING (category))
  WHERE ((e.cancelled_at IS NULL) AND (NOT (EXISTS ( SELECT
           FROM ( SELECT p_1.enabled
                   FROM tocsin.preference p_1
                  WHERE ((p_1.recipient_id = i.recipient_id) AND (p_1.channel = 'email'::text) AND (p_1.scope = ANY (ARRAY[t.event_type, (t.category || '.*'::text), '*'::text])))
                  ORDER BY (p_1.scope = t.event_type) DESC, (p_1.scope <> '*'::text) DESC
                 LIMIT 1) p
          WHERE (NOT p.enabled)))) AND ((e.topic IS NULL) OR (EXISTS ( SELECT
           FROM ( SELECT s_1.level
                   FROM tocsin.subscription s_1
                  WHERE ((s_1.topic = e.topic) AND (s_1.recipient_id = i.recipient_id))
                  ORDER BY s_1.event_id
                 LIMIT 1) s
          WHERE ((s.level = 'all'::text) OR ((s.level = 'mentions'::text) AND (n.because = 'mentioned'::text)))))));

CREATE TABLE tocsin.ending (
    settled_at timestamp with time zone NOT NULL,
    delivery_ids bigint[] NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.0', autovacuum_vacuum_threshold='5000');

ALTER TABLE ONLY tocsin.ending REPLICA IDENTITY FULL;

CREATE TABLE tocsin.erasure (
    erasure_id bigint NOT NULL,
    recipient_id text,
    addresses text[] NOT NULL,
    erased_at timestamp with time zone NOT NULL,
    open text[]
);

ALTER TABLE tocsin.erasure ALTER COLUMN erasure_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME tocsin.erasure_erasure_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE tocsin.event ALTER COLUMN event_id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME tocsin.event_event_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE tocsin.idempotency (
    caller text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    event_id bigint,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT idempotency_key_check CHECK (((length(key) >= 1) AND (length(key) <= 255)))
);

CREATE TABLE tocsin.inbox_change (
    recipient_id text NOT NULL,
    change text NOT NULL,
    notification_ids bigint[],
    at timestamp with time zone DEFAULT now() NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    CONSTRAINT inbox_change_change_check CHECK ((change = ANY (ARRAY['read'::text, 'unread'::text, 'archived'::text])))
);

ALTER TABLE ONLY tocsin.inbox_change REPLICA IDENTITY FULL;

CREATE TABLE tocsin.lane (
    event_id bigint NOT NULL,
    channel text NOT NULL,
    priority smallint NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    taken bigint DEFAULT 0 NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.0', autovacuum_vacuum_threshold='500');

ALTER TABLE ONLY tocsin.lane REPLICA IDENTITY FULL;

CREATE TABLE tocsin.leader (
    only_row boolean DEFAULT true NOT NULL,
    backend_pid integer,
    backend_start timestamp with time zone,
    beat_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    reached_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    outage_ended_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    CONSTRAINT leader_only_row_check CHECK (only_row)
)
WITH (fillfactor='50');

CREATE TABLE tocsin.lease (
    lease_id bigint NOT NULL,
    channel text NOT NULL,
    claim uuid,
    delivery_ids bigint[] NOT NULL,
    until timestamp with time zone NOT NULL,
    process_id uuid
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.0', autovacuum_vacuum_threshold='500');

ALTER TABLE tocsin.lease ALTER COLUMN lease_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME tocsin.lease_lease_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE tocsin.migration (
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE VIEW tocsin.notification_item AS
 SELECT n.notification_id AS id,
    n.recipient_id,
    n.event_id,
    n.event_type,
    split_part(n.event_type, '.'::text, 1) AS category,
    e.title,
    e.body,
    e.body_html,
    e.action_url,
    e.metadata,
    e.initiator,
    (n.read_at IS NOT NULL) AS read,
    n.read_at,
    n.created_at,
    (n.in_inbox AND (n.archived_at IS NULL)) AS listed,
    n.archived_at,
    n.decisions
   FROM (tocsin.notification n
     JOIN tocsin.event e USING (event_id));

ALTER TABLE tocsin.notification ALTER COLUMN notification_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME tocsin.notification_notification_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE tocsin.ops_session (
    hash bytea NOT NULL,
    api_key_id bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL
);

CREATE TABLE tocsin.opt_out (
    recipient_id text NOT NULL,
    key text NOT NULL,
    kept jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE UNLOGGED TABLE tocsin.process (
    process_id uuid NOT NULL,
    kind text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    started_at timestamp with time zone NOT NULL,
    reported_at timestamp with time zone NOT NULL,
    report jsonb NOT NULL,
    CONSTRAINT process_kind_check CHECK ((kind = ANY (ARRAY['worker'::text, 'serve'::text])))
)
WITH (fillfactor='50');

CREATE TABLE tocsin.provider (
    channel text NOT NULL,
    provider text NOT NULL,
    offered_at timestamp with time zone NOT NULL
);

CREATE TABLE tocsin.provider_token (
    key text NOT NULL,
    token text NOT NULL,
    issued_at bigint NOT NULL,
    early boolean NOT NULL
);

CREATE TABLE tocsin.recipient (
    recipient_id text NOT NULL,
    email text,
    name text,
    locale text,
    timezone text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    address text,
    address_key bytea,
    CONSTRAINT recipient_recipient_id_check CHECK (((length(recipient_id) >= 1) AND (length(recipient_id) <= 200)))
);

CREATE TABLE tocsin.secret (
    name text NOT NULL,
    value bytea NOT NULL
);

CREATE TABLE tocsin.stream_ticket (
    hash bytea NOT NULL,
    recipient_id text NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    usable_until timestamp with time zone NOT NULL,
    in_use_until timestamp with time zone
);

ALTER TABLE tocsin.subscription ALTER COLUMN subscription_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME tocsin.subscription_subscription_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE tocsin.suppression (
    address text,
    reason text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    key bytea NOT NULL
);

CREATE TABLE tocsin.timezone (
    name text NOT NULL
);

CREATE TABLE tocsin.unread_counter (
    recipient_id text NOT NULL,
    n integer NOT NULL,
    low xid8 NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.02');

CREATE TABLE tocsin.unread_delta (
    recipient_id text NOT NULL,
    n integer NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL
);

ALTER TABLE ONLY tocsin.unread_delta REPLICA IDENTITY FULL;

ALTER TABLE ONLY tocsin.api_key
    ADD CONSTRAINT api_key_hash_key UNIQUE (hash);

ALTER TABLE ONLY tocsin.api_key
    ADD CONSTRAINT api_key_pkey PRIMARY KEY (api_key_id);

ALTER TABLE ONLY tocsin.attempt
    ADD CONSTRAINT attempt_pkey PRIMARY KEY (delivery_id, attempt);

ALTER TABLE ONLY tocsin.badge_mark
    ADD CONSTRAINT badge_mark_pkey PRIMARY KEY (one);

ALTER TABLE ONLY tocsin.category
    ADD CONSTRAINT category_pkey PRIMARY KEY (category);

ALTER TABLE ONLY tocsin.channel
    ADD CONSTRAINT channel_pkey PRIMARY KEY (channel);

ALTER TABLE ONLY tocsin.claim
    ADD CONSTRAINT claim_pkey PRIMARY KEY (address);

ALTER TABLE ONLY tocsin.delivery_minute_mark
    ADD CONSTRAINT delivery_minute_mark_pkey PRIMARY KEY (one);

ALTER TABLE ONLY tocsin.delivery_minute
    ADD CONSTRAINT delivery_minute_pkey PRIMARY KEY (minute, channel, state, reason, took);

ALTER TABLE ONLY tocsin.delivery
    ADD CONSTRAINT delivery_pkey PRIMARY KEY (delivery_id);

ALTER TABLE ONLY tocsin.device
    ADD CONSTRAINT device_pkey PRIMARY KEY (device_id);

ALTER TABLE ONLY tocsin.device
    ADD CONSTRAINT device_token_key UNIQUE (token);

ALTER TABLE ONLY tocsin.digest_item
    ADD CONSTRAINT digest_item_pkey PRIMARY KEY (notification_id);

ALTER TABLE ONLY tocsin.digest
    ADD CONSTRAINT digest_pkey PRIMARY KEY (digest_id);

ALTER TABLE ONLY tocsin.digest_preference
    ADD CONSTRAINT digest_preference_pkey PRIMARY KEY (recipient_id);

ALTER TABLE ONLY tocsin.digest
    ADD CONSTRAINT digest_recipient_id_due_at_key UNIQUE (recipient_id, due_at);

ALTER TABLE ONLY tocsin.erasure
    ADD CONSTRAINT erasure_pkey PRIMARY KEY (erasure_id);

ALTER TABLE ONLY tocsin.event
    ADD CONSTRAINT event_pkey PRIMARY KEY (event_id);

ALTER TABLE ONLY tocsin.event_type
    ADD CONSTRAINT event_type_pkey PRIMARY KEY (event_type);

ALTER TABLE ONLY tocsin.idempotency
    ADD CONSTRAINT idempotency_pkey PRIMARY KEY (caller, key);

ALTER TABLE ONLY tocsin.leader
    ADD CONSTRAINT leader_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY tocsin.lease
    ADD CONSTRAINT lease_claim_key UNIQUE (claim);

ALTER TABLE ONLY tocsin.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (lease_id);

ALTER TABLE ONLY tocsin.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (name);

ALTER TABLE ONLY tocsin.notification
    ADD CONSTRAINT notification_pkey PRIMARY KEY (notification_id);

ALTER TABLE ONLY tocsin.ops_session
    ADD CONSTRAINT ops_session_pkey PRIMARY KEY (hash);

ALTER TABLE ONLY tocsin.opt_out
    ADD CONSTRAINT opt_out_pkey PRIMARY KEY (recipient_id, key);

ALTER TABLE ONLY tocsin.preference
    ADD CONSTRAINT preference_pkey PRIMARY KEY (recipient_id, scope, channel);

ALTER TABLE ONLY tocsin.process
    ADD CONSTRAINT process_pkey PRIMARY KEY (process_id);

ALTER TABLE ONLY tocsin.provider
    ADD CONSTRAINT provider_pkey PRIMARY KEY (channel, provider);

ALTER TABLE ONLY tocsin.provider_token
    ADD CONSTRAINT provider_token_pkey PRIMARY KEY (key);

ALTER TABLE ONLY tocsin.quiet_hours
    ADD CONSTRAINT quiet_hours_pkey PRIMARY KEY (recipient_id);

ALTER TABLE ONLY tocsin.recipient
    ADD CONSTRAINT recipient_pkey PRIMARY KEY (recipient_id);

ALTER TABLE ONLY tocsin.secret
    ADD CONSTRAINT secret_pkey PRIMARY KEY (name);

ALTER TABLE ONLY tocsin.stream_ticket
    ADD CONSTRAINT stream_ticket_pkey PRIMARY KEY (hash);

ALTER TABLE ONLY tocsin.subscription
    ADD CONSTRAINT subscription_pkey PRIMARY KEY (topic, recipient_id, event_id);

ALTER TABLE ONLY tocsin.suppression
    ADD CONSTRAINT suppression_pkey PRIMARY KEY (key);

ALTER TABLE ONLY tocsin.timezone
    ADD CONSTRAINT timezone_pkey PRIMARY KEY (name);

ALTER TABLE ONLY tocsin.unread_counter
    ADD CONSTRAINT unread_counter_pkey PRIMARY KEY (recipient_id);

CREATE INDEX claim_recipient ON tocsin.claim USING btree (recipient_id);

CREATE INDEX claim_xid ON tocsin.claim USING btree (xid);

CREATE INDEX delivery_badge_push ON tocsin.delivery USING btree (recipient_id, device_id) WHERE (COALESCE(event_id, digest_id) IS NULL);

CREATE INDEX delivery_badge_push_over ON tocsin.delivery USING btree (created_at) WHERE (COALESCE(event_id, digest_id) IS NULL);

CREATE INDEX delivery_burst ON tocsin.delivery USING btree (burst_id) WHERE (burst_id IS NOT NULL);

CREATE INDEX delivery_digest ON tocsin.delivery USING btree (digest_id) WHERE (digest_id IS NOT NULL);

CREATE INDEX delivery_digest_due ON tocsin.delivery USING btree (digest_id) WHERE ((digest_id IS NOT NULL) AND (due_at IS NOT NULL));

CREATE INDEX delivery_due ON tocsin.delivery USING btree (channel, due_at) WHERE (due_at IS NOT NULL);

CREATE INDEX delivery_event ON tocsin.delivery USING btree (event_id, channel, delivery_id);

CREATE INDEX delivery_failed ON tocsin.delivery USING btree (failed_at DESC, delivery_id DESC) INCLUDE (channel, reason) WHERE ((failed_at IS NOT NULL) AND (COALESCE(event_id, digest_id) IS NOT NULL));

CREATE INDEX delivery_notification ON tocsin.delivery USING btree (notification_id);

CREATE INDEX device_recipient ON tocsin.device USING btree (recipient_id);

CREATE INDEX digest_created_at ON tocsin.digest USING btree (created_at);

CREATE INDEX digest_item_digest ON tocsin.digest_item USING btree (digest_id) WHERE (digest_id IS NOT NULL);

CREATE INDEX digest_item_waiting ON tocsin.digest_item USING btree (recipient_id) WHERE (digest_id IS NULL);

CREATE INDEX digest_preference_next ON tocsin.digest_preference USING btree (next_at) WHERE (next_at IS NOT NULL);

CREATE INDEX ending_settled ON tocsin.ending USING btree (settled_at);

CREATE INDEX event_created_at ON tocsin.event USING btree (created_at DESC, event_id DESC);

CREATE INDEX event_initiator ON tocsin.event USING btree (initiator) WHERE (initiator IS NOT NULL);

CREATE INDEX event_mentions ON tocsin.event USING gin (((metadata -> 'mentions'::text))) WHERE (metadata ? 'mentions'::text);

CREATE INDEX event_scheduled_or_invited ON tocsin.event USING btree (event_id) WHERE ((told_at IS NULL) OR (email IS NOT NULL));

CREATE INDEX event_send_at ON tocsin.event USING btree (send_at) WHERE ((told_at IS NULL) AND (cancelled_at IS NULL));

CREATE INDEX inbox_change_recipient ON tocsin.inbox_change USING btree (recipient_id, xid);

CREATE INDEX inbox_change_xid ON tocsin.inbox_change USING btree (xid) INCLUDE (recipient_id);

CREATE INDEX lane_event ON tocsin.lane USING btree (event_id, channel);

CREATE INDEX lane_xid ON tocsin.lane USING btree (xid);

CREATE INDEX lease_job ON tocsin.lease USING btree ((delivery_ids[1])) WHERE (claim IS NULL);

CREATE INDEX lease_until ON tocsin.lease USING btree (until);

CREATE INDEX notification_address ON tocsin.notification USING btree (address) WHERE (recipient_id IS NULL);

CREATE UNIQUE INDEX notification_event ON tocsin.notification USING btree (event_id, recipient_id);

CREATE INDEX notification_inbox ON tocsin.notification USING btree (recipient_id, created_at DESC, notification_id DESC) WHERE (in_inbox AND (archived_at IS NULL));

CREATE INDEX notification_over ON tocsin.notification USING btree (COALESCE(read_at, archived_at,
CASE
    WHEN (NOT in_inbox) THEN created_at
    ELSE NULL::timestamp with time zone
END)) WHERE ((read_at IS NOT NULL) OR (archived_at IS NOT NULL) OR (NOT in_inbox));

CREATE INDEX notification_pending ON tocsin.notification USING btree (xid) INCLUDE (address) WHERE (recipient_id IS NULL);

CREATE INDEX notification_read ON tocsin.notification USING btree (recipient_id, event_type, created_at DESC, notification_id DESC) WHERE (in_inbox AND (archived_at IS NULL) AND (read_at IS NOT NULL));

CREATE INDEX notification_unread ON tocsin.notification USING btree (recipient_id, event_type, created_at DESC, notification_id DESC) WHERE (in_inbox AND (archived_at IS NULL) AND (read_at IS NULL));

CREATE INDEX notification_xid ON tocsin.notification USING btree (recipient_id, xid);

CREATE INDEX recipient_address ON tocsin.recipient USING btree (address, created_at, recipient_id) WHERE (address IS NOT NULL);

CREATE INDEX subscription_recipient ON tocsin.subscription USING btree (recipient_id, created_at DESC, subscription_id DESC);

CREATE INDEX unread_delta_recipient ON tocsin.unread_delta USING btree (recipient_id, xid) INCLUDE (n);

CREATE INDEX unread_delta_unfolded ON tocsin.unread_delta USING btree (xid) INCLUDE (recipient_id) WHERE (n <> 0);

CREATE TRIGGER forget_erased AFTER INSERT ON tocsin.recipient REFERENCING NEW TABLE AS made FOR EACH STATEMENT EXECUTE FUNCTION tocsin.forget_erased();

CREATE TRIGGER keep_address BEFORE INSERT OR UPDATE OF email, address ON tocsin.recipient FOR EACH ROW EXECUTE FUNCTION tocsin.keep_address();

CREATE TRIGGER keep_suppression_key BEFORE INSERT ON tocsin.suppression FOR EACH ROW EXECUTE FUNCTION tocsin.keep_suppression_key();

CREATE TRIGGER keep_usual_decisions BEFORE INSERT OR UPDATE OF default_channels, mandatory_channels ON tocsin.event_type FOR EACH ROW EXECUTE FUNCTION tocsin.keep_usual_decisions();

CREATE TRIGGER renew_usual_decisions AFTER INSERT OR DELETE OR UPDATE OF available ON tocsin.channel FOR EACH STATEMENT EXECUTE FUNCTION tocsin.renew_usual_decisions();

ALTER TABLE ONLY tocsin.claim
    ADD CONSTRAINT claim_recipient_id_fkey FOREIGN KEY (recipient_id) REFERENCES tocsin.recipient(recipient_id) ON DELETE CASCADE;

ALTER TABLE ONLY tocsin.device
    ADD CONSTRAINT device_recipient_id_fkey FOREIGN KEY (recipient_id) REFERENCES tocsin.recipient(recipient_id) ON DELETE CASCADE;

ALTER TABLE ONLY tocsin.digest_preference
    ADD CONSTRAINT digest_preference_recipient_id_fkey FOREIGN KEY (recipient_id) REFERENCES tocsin.recipient(recipient_id) ON DELETE CASCADE;

ALTER TABLE ONLY tocsin.event_type
    ADD CONSTRAINT event_type_category_fkey FOREIGN KEY (category) REFERENCES tocsin.category(category);

ALTER TABLE ONLY tocsin.ops_session
    ADD CONSTRAINT ops_session_api_key_id_fkey FOREIGN KEY (api_key_id) REFERENCES tocsin.api_key(api_key_id) ON DELETE CASCADE;

ALTER TABLE ONLY tocsin.opt_out
    ADD CONSTRAINT opt_out_recipient_id_fkey FOREIGN KEY (recipient_id) REFERENCES tocsin.recipient(recipient_id) ON DELETE CASCADE;

ALTER TABLE ONLY tocsin.preference
    ADD CONSTRAINT preference_channel_fkey FOREIGN KEY (channel) REFERENCES tocsin.channel(channel);

ALTER TABLE ONLY tocsin.preference
    ADD CONSTRAINT preference_recipient_id_fkey FOREIGN KEY (recipient_id) REFERENCES tocsin.recipient(recipient_id) ON DELETE CASCADE;

ALTER TABLE ONLY tocsin.provider
    ADD CONSTRAINT provider_channel_fkey FOREIGN KEY (channel) REFERENCES tocsin.channel(channel);

ALTER TABLE ONLY tocsin.quiet_hours
    ADD CONSTRAINT quiet_hours_recipient_id_fkey FOREIGN KEY (recipient_id) REFERENCES tocsin.recipient(recipient_id) ON DELETE CASCADE;

GRANT USAGE ON SCHEMA tocsin TO tocsin_app;

REVOKE ALL ON FUNCTION tocsin.address_fault(_address text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.address_key(_address text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.address_owner(_address text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.addresses_of(_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.all_but(_initiator text, _recipients text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.announce(_moved text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.apply_catalogue(_catalogue jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.archive(_recipient_id text, _notification_id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.arm_bell() FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.assemble_digests(_now timestamp with time zone, _limit integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.audience(_event tocsin.event) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.beat() FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.call_lost(_now timestamp with time zone, _limit integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.call_waiting(_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.cancel(event_id bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION tocsin.cancel(event_id bigint) TO tocsin_app;

REVOKE ALL ON FUNCTION tocsin.check_address(_email text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.check_known(_people text[], _field text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.check_recipient(_id text, _email text, _name text, _locale text, _timezone text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.check_topic(_topic text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.checked_label(_label text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.checked_token(_provider text, _token text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.claim_email(email text, recipient text) FROM PUBLIC;
GRANT ALL ON FUNCTION tocsin.claim_email(email text, recipient text) TO tocsin_app;

REVOKE ALL ON FUNCTION tocsin.claimed_since(_since pg_snapshot) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.clean_up_badge_pushes(_now timestamp with time zone, _limit integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.clean_up_digests(_before timestamp with time zone, _limit integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.clean_up_events(_before timestamp with time zone, _limit integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.clean_up_keys(_now timestamp with time zone, _limit integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.clean_up_notifications(_before timestamp with time zone, _limit integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.compared_address(_address text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.compared_domain(_domain text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.content_fault(_title text, _body text, _body_html text, _action_url text, _metadata jsonb, _initiator text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.content_fine(_title text, _body text, _body_html text, _action_url text, _metadata jsonb, _initiator text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.correct_badges(_recipients text[], _window interval, _life interval, _seen pg_snapshot) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.create_missing_recipients(_people jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.decide(_type tocsin.event_type, _situation jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.decide_invitation(_address text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.defer_jobs(_channel text, _priority smallint, _delivery_ids bigint[], _lease interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.delete_deliveries(_deliveries bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.delete_events(_events bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.digest_contents(_digest_id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.disable_stale_devices(_now timestamp with time zone, _limit integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.disarm_bell() FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.dispatch_due(_channel text, _room integer, _lease interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.dispatch_lanes(_channel text, _priority smallint, _event_ids bigint[], _after bigint[], _each integer, _lease interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.duration(_text text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.earlier_event(_caller text, _key text, _event_id bigint, _content jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.emit(_caller text, _event_type text, _recipients text[], _topic text, _email text, _title text, _body text, _action_url text, _metadata jsonb, _initiator text, _idempotency_key text, _body_html text, _send_at timestamp with time zone, _subscribe_initiator boolean, OUT event_id bigint, OUT notifications integer, OUT replayed boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.end_leases(_most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.ended(_since timestamp with time zone, _until timestamp with time zone, _recent timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.erase_address(_email text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.erase_from_events(_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.erase_invitations(_addresses text[], _before timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.erase_recipient(_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.erase_traces(_id text, _addresses text[], _before timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.exported_delivery(_delivery tocsin.delivery) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.fold_unread(_announced pg_snapshot, _folded pg_snapshot) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.follow_by_reply(_event tocsin.event) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.followers(_event tocsin.event) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.forget_erased() FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.hand_over(_addresses text[], OUT handed integer, OUT busy text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.has_line_break(_text text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.hash_suppressions(_addresses text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.in_inbox_of(_event_id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.invite(_event tocsin.event, _type tocsin.event_type, _now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.is_held(_delivery tocsin.delivery, _claim uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.is_line(_text text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.is_visible(_text text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.is_web_address(_address text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.jobs_at_work(_channel text, _alive_within interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.keep_address() FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.keep_minutes(_now timestamp with time zone, _most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.keep_suppression_key() FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.keep_usual_decisions() FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.latency_class(_took interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.listener_sleeps() FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.lower_case(_text text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.mark_all_read(_recipient_id text, _category text, _event_type text, _as_of pg_snapshot) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.mark_read(_recipient_id text, _notification_id bigint, _read boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.mentions(_metadata jsonb, _id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.nearest_event_types(_event_type text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.news(_recipients text[], _readers text[], _snapshots pg_snapshot[], _uptos pg_snapshot[], _seens bigint[], _limit integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.next_digest_at(_preference tocsin.digest_preference, _after timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.note_reached(_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.notify(event_type text, recipients text[], title text, body text, action_url text, metadata jsonb, initiator text, idempotency_key text, body_html text, send_at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION tocsin.notify(event_type text, recipients text[], title text, body text, action_url text, metadata jsonb, initiator text, idempotency_key text, body_html text, send_at timestamp with time zone) TO tocsin_app;

REVOKE ALL ON FUNCTION tocsin.notify_email(email text, event_type text, title text, body text, action_url text, metadata jsonb, initiator text, idempotency_key text, body_html text, send_at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION tocsin.notify_email(email text, event_type text, title text, body text, action_url text, metadata jsonb, initiator text, idempotency_key text, body_html text, send_at timestamp with time zone) TO tocsin_app;

REVOKE ALL ON FUNCTION tocsin.notify_topic(topic text, event_type text, title text, body text, action_url text, metadata jsonb, initiator text, idempotency_key text, body_html text, send_at timestamp with time zone, subscribe_initiator boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION tocsin.notify_topic(topic text, event_type text, title text, body text, action_url text, metadata jsonb, initiator text, idempotency_key text, body_html text, send_at timestamp with time zone, subscribe_initiator boolean) TO tocsin_app;

REVOKE ALL ON FUNCTION tocsin.outage_after() FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.outage_grace() FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.punycode(_label text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.quiet_until(_quiet tocsin.quiet_hours, _at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.reach(_event tocsin.event, _type tocsin.event_type, _people text[], _now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.recipients_fault(_recipients text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.refuse(_field text, _message text, _hint text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.refuse_event_type(_event_type text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.renew_usual_decisions() FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.replay(_delivery_ids bigint[], _lift boolean, OUT replayed integer, OUT kept jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.report_process(_process_id uuid, _kind text, _host text, _pid integer, _version text, _started_at timestamp with time zone, _report jsonb, _lease interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.reset_foreign_xids() FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.ring(_moved text[]) FROM PUBLIC;

REVOKE ALL ON PROCEDURE tocsin.ring_turns(INOUT turns double precision[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.session_exists(_pid integer, _start timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.sessions_in_the_way() FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.set_digest_preference(_recipient_id text, _frequency text, _categories text[], _send_at time without time zone, _timezone text, _weekday smallint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.situation(_overrides jsonb, _no_address boolean, _suppressed boolean, _no_device boolean, _digest boolean, _muted text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.situations(_type tocsin.event_type, _people text[], _because text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.skips_initiator(_event tocsin.event) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.still_open(_transactions text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.stored_token(_provider text, _token text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.subscribe(recipient text, topic text, level text) FROM PUBLIC;
GRANT ALL ON FUNCTION tocsin.subscribe(recipient text, topic text, level text) TO tocsin_app;

REVOKE ALL ON FUNCTION tocsin.sweep_erased() FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.take_over_opt_out(_address text, _recipient_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.tell(_event_id bigint, _type tocsin.event_type, _people text[], _because text[], _now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.tell_all(_event_id bigint, _type tocsin.event_type, _people text[], _because text[], _now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.tell_due_events(_limit integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.tell_few(_event_id bigint, _type tocsin.event_type, _people text[], _because text[], _now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.tell_many(_event_id bigint, _type tocsin.event_type, _people text[], _because text[], _now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.tell_one(_event_id bigint, _event_type text, _person text, _now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.told(_event_id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.try_lead(_silent_for interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.turn_digest_off(_recipient_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.undo_mark_all_read(_recipient_id text, _read_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.unfinished(_most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.unfollowed(_topic text, _recipient_id text, _notification_id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.unmute(_recipient_id text, _topic text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.unread_count(recipient text) FROM PUBLIC;
GRANT ALL ON FUNCTION tocsin.unread_count(recipient text) TO tocsin_app;

REVOKE ALL ON FUNCTION tocsin.unread_counts(_recipients text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.unread_counts_in_order(_recipients text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.unsubscribe(recipient text, topic text) FROM PUBLIC;
GRANT ALL ON FUNCTION tocsin.unsubscribe(recipient text, topic text) TO tocsin_app;

REVOKE ALL ON FUNCTION tocsin.upsert_recipient(id text, email text, name text, locale text, timezone text) FROM PUBLIC;
GRANT ALL ON FUNCTION tocsin.upsert_recipient(id text, email text, name text, locale text, timezone text) TO tocsin_app;

REVOKE ALL ON FUNCTION tocsin.usual_decisions(_type tocsin.event_type) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.utc_offset(_zone text, _at bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.wanted(_delivery_id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.wants_badge_pushes(_recipient_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tocsin.zone_changes(_zone text, OUT starts bigint[], OUT utc_offsets integer[]) FROM PUBLIC;
