-- name: load_token
-- The token of a key that stands.
select
    p.key,
    p.token,
    p.issued_at,
    p.early
from tocsin.provider_token p
where p.key = :key;

-- name: save_token!
-- Stores a token if the one it replaces still stands (null: if there is none).
insert into tocsin.provider_token as p (key, token, issued_at, early)
values (:key, :token, :issued_at, :early)
on conflict (key) do update
set token = excluded.token, issued_at = excluded.issued_at, early = excluded.early
where p.token = :replacing;
