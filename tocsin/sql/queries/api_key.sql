-- name: create_api_key
-- Keeps a key's hash; returns its id.
insert into tocsin.api_key (name, scopes, event_types, prefix, hash)
values (:name, :scopes, :event_types, :prefix, :hash)
returning api_key_id;

-- name: find_api_key
-- The key of this hash, and notes (once a minute at most) that it was used.
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
-- Ends these keys at once; returns the ids of those that were live.
update tocsin.api_key k
set revoked_at = now()
where k.api_key_id = any (:api_key_ids)
    and k.revoked_at is null
returning k.api_key_id as id;
