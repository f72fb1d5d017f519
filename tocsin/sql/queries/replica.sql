-- name: primary_position
-- What is committed on the primary, and where its WAL ends.
select
    pg_current_snapshot()::text as snapshot,
    pg_current_wal_insert_lsn()::text as place;

-- name: standby_position
-- What this standby has replayed, as a snapshot; null where none of these positions of the primary is replayed.
select
    s.snapshot,
    s.replayed::text as place
from tocsin.standby_position(:snapshots::pg_snapshot[], :places::pg_lsn[]) s;

-- name: server_identity
-- Whether this server is a standby, and by what it is known which server it is a copy of.
select
    pg_is_in_recovery() as standby,
    c.system_identifier
from pg_control_system() c;
