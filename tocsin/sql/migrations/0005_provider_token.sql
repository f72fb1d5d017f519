-- The token by which APNs knows us, shared by all workers: Apple counts how often a team changes it.
create table tocsin.provider_token (
    key text primary key,
    token text not null,
    issued_at bigint not null,
    -- in place of one that Apple called expired before its time
    early boolean not null
);
