-- name: listen_badge#
-- Hears whose inbox moved.
listen tocsin_badge;

-- name: unread_counts
-- Exact counts for several people in one read, in their order; the ids and the counts are one text each.
select tocsin.unread_counts_in_order($1::text[])::text;

-- name: news
-- What some streams have to say, as JSON.
select tocsin.news(
    :recipient_ids::text[],
    :readers::text[],
    :snapshots::pg_snapshot[],
    :uptos::pg_snapshot[],
    :seens::bigint[],
    :limit
);
