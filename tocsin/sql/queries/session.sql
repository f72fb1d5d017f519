-- name: settle_pooled
-- An app's open transaction may hold a row (its upsert of a person, its cancel): say so instead of hanging. Times in UTC. Values of a
-- statement that fails stay out of the server's log.
select
    set_config('lock_timeout', '3s', false),
    set_config('log_parameter_max_length_on_error', '0', false),
    set_config('timezone', 'UTC', false);

-- name: settle_steady
-- A plan that holds for all values, from the first time on.
select set_config('plan_cache_mode', 'force_generic_plan', false);

-- name: settle_direct
-- The server drops a session whose client vanished within half a minute, and with it the locks that it held. Timeouts
-- that the role has for its requests are not meant for one that listens.
select
    set_config('lock_timeout', '0', false),
    set_config('log_parameter_max_length_on_error', '0', false),
    set_config('statement_timeout', '0', false),
    set_config('idle_session_timeout', '0', false),
    set_config('tcp_keepalives_idle', '10', false),
    set_config('tcp_keepalives_interval', '5', false),
    set_config('tcp_keepalives_count', '3', false);

-- name: is_read_only
-- Whether the server can't be written to: a standby, or one in recovery.
select pg_is_in_recovery();

-- name: use_search_path
-- Procrastinate's statements use unqualified names.
select set_config('search_path', :search_path, false);
