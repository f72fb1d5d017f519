-- name: open_session!
-- Signs an operator in with a key that is good and has the scope; forgets sessions that are over.
with over as (
    delete from tocsin.ops_session s
    where s.expires_at < clock_timestamp()
)
insert into tocsin.ops_session (hash, api_key_id, expires_at)
values (:hash, :api_key_id, clock_timestamp() + :life);

-- name: find_session
-- Whose session it is, while it lasts and its key is good.
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
