-- name: make_ticket
-- Creates a ticket; returns until when it can be used first.
insert into tocsin.stream_ticket (hash, recipient_id, expires_at, usable_until)
values (:hash, :recipient_id, :expires_at, least(now() + interval '60 s', :expires_at))
returning usable_until;

-- name: take_ticket
-- Opens a stream with a ticket. If a process dies with the stream, the ticket is free again at in_use_until.
update tocsin.stream_ticket t
set in_use_until = now() + interval '45 s'
where t.hash = :hash
    and t.expires_at > now()
    and case
        when t.in_use_until is null then t.usable_until > now()
        else now() between t.in_use_until and t.in_use_until + interval '60 s'
    end
returning
    t.recipient_id,
    t.expires_at;

-- name: is_ticket_in_use
-- Whether a ticket is valid and its stream is open.
select exists (
    select
    from tocsin.stream_ticket t
    where t.hash = :hash
        and t.expires_at > now()
        and t.in_use_until > now()
);

-- name: renew_ticket!
-- Its stream is still open; changes nothing where the ticket was deleted with its person.
update tocsin.stream_ticket t
set in_use_until = now() + interval '45 s'
where t.hash = :hash;

-- name: release_ticket!
-- Its stream ended: the next one may be opened within 60 s.
update tocsin.stream_ticket t
set in_use_until = null, usable_until = now() + interval '60 s'
where t.hash = :hash;

-- name: delete_spent_tickets!
-- Deletes tickets with which no stream can be opened any more.
delete from tocsin.stream_ticket t
where t.expires_at < now()
    or greatest(t.usable_until, t.in_use_until + interval '60 s') < now();

-- name: create_api_key
-- Stores the hash of a key; returns its id.
insert into tocsin.api_key (name, scopes, event_types, prefix, hash)
values (:name, :scopes, :event_types, :prefix, :hash)
returning api_key_id;

-- name: find_api_key
-- The key with this hash; records, once a minute at most, that it was used.
with used as (
    update tocsin.api_key k
    set last_used_at = now()
    where k.hash = :hash
        and k.revoked_at is null
        and coalesce(k.last_used_at < now() - interval '1 minute', true)
)
select
    k.api_key_id as id,
    k.name,
    k.scopes,
    k.event_types,
    k.prefix,
    k.created_at,
    k.last_used_at,
    k.revoked_at
from tocsin.api_key k
where k.hash = :hash;

-- name: list_api_keys
-- All keys, revoked ones too, oldest first.
select
    k.api_key_id as id,
    k.name,
    k.scopes,
    k.event_types,
    k.prefix,
    k.created_at,
    k.last_used_at,
    k.revoked_at
from tocsin.api_key k
order by k.api_key_id;

-- name: revoke_api_keys
-- Revokes these keys; returns the ids of those that were not revoked before.
update tocsin.api_key k
set revoked_at = now()
where k.api_key_id = any (:api_key_ids)
    and k.revoked_at is null
returning k.api_key_id as id;

-- name: open_session!
-- Signs an operator in with a valid key that has the scope; deletes sessions that are over.
with over as (
    delete from tocsin.ops_session s
    where s.expires_at < clock_timestamp()
)
insert into tocsin.ops_session (hash, api_key_id, expires_at)
values (:hash, :api_key_id, clock_timestamp() + :life);

-- name: find_session
-- The key of a session, while the session lasts and its key is valid.
select
    k.api_key_id,
    k.name,
    s.expires_at
from tocsin.ops_session s
join tocsin.api_key k using (api_key_id)
where s.hash = :hash
    and s.expires_at > clock_timestamp()
    and k.revoked_at is null
    and 'ops' = any (k.scopes);

-- name: close_session!
-- Signs out.
delete from tocsin.ops_session s
where s.hash = :hash;
