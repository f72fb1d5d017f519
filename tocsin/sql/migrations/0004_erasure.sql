-- Who was erased in the last days: a transaction that was open then may still commit something of theirs.
create table tocsin.erasure (
    recipient_id text primary key,
    erased_at timestamptz not null default clock_timestamp()
);

-- when a worker last said that it has a provider for the channel
alter table tocsin.channel add column offered_at timestamptz;
