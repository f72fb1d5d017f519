-- People without an account: notified by an address alone, until somebody claims it.

alter table tocsin.notification
    -- null: nobody has claimed the address yet
    alter column recipient_id drop not null,
    -- of somebody without an account, as tocsin.compared_address() writes it; null for all others
    add column address text,
    add constraint notification_somebodys check (recipient_id is not null or address is not null);

-- hand_over, claim_email, erase_recipient
create index notification_address on tocsin.notification (address) where recipient_id is null;
-- claimed_since
create index notification_pending on tocsin.notification (xid) include (address) where recipient_id is null;

alter table tocsin.delivery alter column recipient_id drop not null;

-- whose an address is, by the word of an app
create table tocsin.claim (
    address text primary key,
    recipient_id text not null references tocsin.recipient on delete cascade,
    claimed_at timestamptz not null default clock_timestamp(),
    xid xid8 not null default pg_current_xact_id()
);

-- export_claims, erase_recipient
create index claim_recipient on tocsin.claim (recipient_id);
-- claimed_since
create index claim_xid on tocsin.claim (xid);

-- the email in its compared form, kept by a trigger
alter table tocsin.recipient add column address text;

-- ASCII is lower-cased alike in every locale; where there is more, write_addresses() writes both tables' anew
update tocsin.recipient r
set address = lower(r.email collate "C")
where octet_length(r.email) = length(r.email);

-- address_owner
create index recipient_address on tocsin.recipient (address, created_at, recipient_id) where address is not null;
