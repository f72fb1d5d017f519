-- name: list_people
-- Whom the demo page offers.
select
    r.recipient_id as id,
    r.name,
    r.email
from tocsin.recipient r
order by r.created_at, r.recipient_id
limit :limit;
