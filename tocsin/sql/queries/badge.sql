-- name: listen_badge#
-- Listens for people whose badge changed.
listen tocsin_badge;

-- name: badges
-- Exact counts of several people in one statement, in their order: first all unread counts, then all unseen counts; ids and
-- counts are one text each.
select tocsin.badges_in_order($1::text[])::text;

-- name: configure_stream_connection
-- Planner settings of the connection for streams: each of its statements has one plan, by the indexes.
select
    set_config('enable_seqscan', 'off', false),
    set_config('enable_bitmapscan', 'off', false),
    set_config('plan_cache_mode', 'force_generic_plan', false),
    set_config('jit', 'off', false),
    set_config('timezone', 'UTC', false);

-- name: prepare_stream_updates#
-- What some streams need, as JSON.
prepare stream_updates (text[], text[], pg_snapshot[], pg_snapshot[], bigint[], integer) as
select tocsin.stream_updates($1, $2, $3, $4, $5, $6);

-- name: prepare_probe#
-- Shows that the connection works.
prepare probe as
select '';
