-- What an unsubscribe link turned off, for its undo: what each of those choices was before, and what the link made of it.
create table tocsin.opt_out (
    recipient_id text not null references tocsin.recipient on delete cascade,
    -- which link and scope
    key text not null,
    -- {"overrides": {scope: [before, since]}, "frequency": of the digest, where it was on}
    kept jsonb not null,
    created_at timestamptz not null default now(),
    primary key (recipient_id, key)
);

-- Zones by their IANA names, in the one spelling that is known everywhere; filled by each migrate.
create table tocsin.timezone (
    name text primary key
);

-- its arguments changed
drop function if exists tocsin.check_known(text[]);
