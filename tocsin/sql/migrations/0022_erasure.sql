-- Erasure: what is held of a person leaves no clear address, and each part of it is found by an index.

-- the key of HMAC-SHA256 (RFC 2104), as its inner and its outer pad, 64 bytes each
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

-- as in functions/address.sql, which comes after the migrations
create or replace function tocsin.address_key(_address text) returns bytea
language plpgsql stable strict parallel safe
as $$
declare
    _pads bytea := (select s.value from tocsin.secret s where s.name = 'address_key');
begin
    return sha256(substr(_pads, 65) || sha256(substr(_pads, 1, 64) || convert_to(_address, 'UTF8')));
end
$$;

-- A suppression is found by the keyed hash of its address, which outlives the address in clear.
alter table tocsin.suppression add key bytea;
update tocsin.suppression set key = tocsin.address_key(address);
alter table tocsin.suppression drop constraint suppression_pkey;
alter table tocsin.suppression add primary key (key);
-- null: whose it was has been erased
alter table tocsin.suppression alter address drop not null;

-- the key of a person's address: hashing it at each notify would take longer than the look-up
alter table tocsin.recipient add address_key bytea;
update tocsin.recipient set address_key = tocsin.address_key(address) where address is not null;

-- Who was erased while other transactions were open, until these are over: what they commit is still to be erased.
drop table tocsin.erasure;
create table tocsin.erasure (
    erasure_id bigint generated always as identity primary key,
    -- null: an address without an account
    recipient_id text,
    addresses text[] not null,
    erased_at timestamptz not null,
    -- the transactions (as in pg_locks.virtualxid) that began before the erasure was committed; null: not listed yet
    open text[]
);

-- erase_traces: the events that mention a person
create index event_mentions on tocsin.event using gin ((metadata -> 'mentions')) where metadata ? 'mentions';

-- erase_traces, erase_invitations: scheduled events, and invitations
create index event_scheduled_or_invited on tocsin.event (event_id) where told_at is null or email is not null;
