-- name: configure_session
-- Sets everything that our statements rely on, whatever the database, the role or the client's environment set: how values are
-- written and read, which names are found, and what a transaction may do. As a statement, since a connection pooler refuses such
-- parameters at the start of a session. An app's open transaction may hold a row (its upsert of a person, its cancel):
-- statements then fail instead of waiting for long. Values of a failing statement stay out of the server's log. Settings
-- that this version of PostgreSQL does not have are left out. With :local until the transaction ends, else the session.
select set_config(s.name, s.value, :local)
from (
    values
        ('client_encoding', 'UTF8'),
        ('datestyle', 'ISO, YMD'),
        ('intervalstyle', 'postgres'),
        ('timezone', 'UTC'),
        ('bytea_output', 'hex'),
        ('extra_float_digits', '1'),
        ('standard_conforming_strings', 'on'),
        ('array_nulls', 'on'),
        ('transform_null_equals', 'off'),
        ('search_path', 'pg_catalog, pg_temp'),
        ('jit', 'off'),
        ('row_security', 'on'),
        ('default_transaction_isolation', 'read committed'),
        ('default_transaction_read_only', 'off'),
        ('default_transaction_deferrable', 'off'),
        ('log_parameter_max_length_on_error', '0'),
        ('lock_timeout', '3s'),
        ('statement_timeout', '0'),
        ('idle_in_transaction_session_timeout', '0'),
        ('idle_session_timeout', '0'),
        ('transaction_timeout', '0')
) s (name, value)
where current_setting(s.name, true) is not null;

-- name: configure_generic_plans
-- Uses one plan for all values, from the first execution on.
select set_config('plan_cache_mode', 'force_generic_plan', false);

-- name: configure_direct_session
-- After configure_session, for a session that listens or migrates: it waits for locks. The server ends a session whose client
-- vanished within half a minute, and so releases its locks.
select
    set_config('lock_timeout', '0', false),
    set_config('tcp_keepalives_idle', '10', false),
    set_config('tcp_keepalives_interval', '5', false),
    set_config('tcp_keepalives_count', '3', false);

-- name: is_read_only
-- Whether the server can't be written to: a standby, or one in recovery.
select pg_is_in_recovery();

-- name: use_search_path
-- Procrastinate's statements use unqualified names. With :local until the transaction ends.
select set_config('search_path', :search_path, :local);

-- name: use_snapshot#
-- The first statement of a transaction that reads one snapshot.
set transaction isolation level repeatable read read only;

-- name: backend_pid
-- The process id of this session in PostgreSQL.
select pg_backend_pid();

-- name: own_session
-- This session: its process id, and its start in microseconds, which distinguishes it from those of other servers; and whether
-- the server is a standby.
select a.pid, (extract(epoch from a.backend_start) * 1000000)::bigint, pg_is_in_recovery()
from pg_stat_get_activity(pg_backend_pid()) a;

-- name: lost_sessions
-- Which of these sessions this server does not have.
select s.pid, s.start
from unnest(:pids::int[], :starts::bigint[]) s (pid, start)
where not exists (
    select
    from pg_stat_get_activity(s.pid) a
    where (extract(epoch from a.backend_start) * 1000000)::bigint = s.start
);
