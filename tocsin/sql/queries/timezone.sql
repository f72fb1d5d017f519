-- name: zone_changes
-- The rules of these time zones; names that PostgreSQL does not know are not in the result.
select
    z.name,
    c.starts,
    c.utc_offsets
from tocsin.timezone z
cross join lateral tocsin.zone_changes(z.name) c
where z.name = any (:names::text[]);
