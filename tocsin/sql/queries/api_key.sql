-- name: create_api_key
-- Keeps a key's hash; answers its id.
insert into tocsin.api_key (name, scopes, hash)
values (:name, :scopes, :hash)
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
    k.created_at,
    k.last_used_at,
    k.revoked_at
from tocsin.api_key k
order by k.api_key_id;

-- name: revoke_api_key!
-- Ends a key at once, by its id.
update tocsin.api_key k
set revoked_at = now()
where k.api_key_id = :api_key_id
    and k.revoked_at is null;
