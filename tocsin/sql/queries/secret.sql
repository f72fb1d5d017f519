-- name: get_secret
-- What this installation keeps for itself under a name.
select s.value
from tocsin.secret s
where s.name = :name;
