-- name: listen_badge#
-- Hears whose inbox moved.
listen tocsin_badge;

-- name: unread_counts
-- Exact counts for several people in one read, in their order; the ids and the counts are one text each.
select tocsin.unread_counts_in_order($1::text[])::text;

-- name: configure_stream_connection
-- The line's planner: what it asks has one plan for ever, by the indexes.
select
    set_config('enable_seqscan', 'off', false),
    set_config('enable_bitmapscan', 'off', false),
    set_config('plan_cache_mode', 'force_generic_plan', false),
    set_config('jit', 'off', false),
    set_config('timezone', 'UTC', false);

-- name: prepare_stream_updates#
-- What some streams have to say, as JSON.
prepare stream_updates (text[], text[], pg_snapshot[], pg_snapshot[], bigint[], integer) as
select tocsin.stream_updates($1, $2, $3, $4, $5, $6);

-- name: prepare_probe#
-- Proves the line alive.
prepare probe as
select '';
