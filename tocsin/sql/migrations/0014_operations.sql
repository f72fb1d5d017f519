-- What the operations page reads: the ledger by the minute, the processes that run, operators' sessions.

-- tocsin.ended: what reached its end in some seconds or a minute
create index delivery_settled on tocsin.delivery (settled_at) where settled_at is not null;
-- dead_letters, dead_letter_reasons: all that they filter and sort by, so that only what is shown is fetched. A badge's
-- push is none: the next one corrects it.
create index delivery_failed on tocsin.delivery (settled_at desc, delivery_id desc) include (channel, reason)
    where state = 'failed' and coalesce(event_id, digest_id) is not null;

-- The ledger by the minute, kept for two days. Of an end (sent, failed, …) n is how many reached it in that minute; of
-- queued, sending and deferred how many were so at the minute's end, as far as they were counted.
create table tocsin.delivery_minute (
    minute timestamptz not null,
    channel text not null,
    state tocsin.delivery_state not null,
    -- empty for none
    reason text not null,
    -- of what was sent, the class of its latency (tocsin.latency_class); -1 where there is none
    took smallint not null,
    n integer not null,
    primary key (minute, channel, state, reason, took)
);

-- One row: up to when minutes are kept.
create table tocsin.delivery_minute_mark (
    one boolean primary key default true check (one),
    upto timestamptz not null
);

insert into tocsin.delivery_minute_mark (upto) values (date_trunc('minute', now()) - interval '1 day');

-- How each process says it is; its word lapses within seconds, so a crash of the server may well forget it.
create unlogged table tocsin.process (
    process_id uuid primary key,
    kind text not null check (kind in ('worker', 'serve')),
    host text not null,
    pid integer not null,
    version text not null,
    started_at timestamptz not null,
    reported_at timestamptz not null,
    -- its actors, its streams, whether it leads
    report jsonb not null
)
with (fillfactor = 50);

-- An operator's browser, signed in with an API key of the scope ops; it ends with the key.
create table tocsin.ops_session (
    hash bytea primary key,
    api_key_id bigint not null references tocsin.api_key on delete cascade,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null
);
