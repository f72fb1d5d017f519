-- What open streams need: the unread and unseen counts of some people (in their order), and for some readers what is new since their snapshot,
-- at most _limit notifications each. One statement, so that everything comes from one snapshot in one round trip; as JSON,
-- which is parsed faster than rows.
--
-- `unknown`: those of the people who are not recipients, or no longer: the stream of a person who was erased ends.
--
-- A reader whose earlier result was cut off at _limit (in the snapshot _uptos) has its notifications up to the id _seens.
create or replace function tocsin.stream_updates(
    _recipients text[],
    _readers text[],
    _snapshots pg_snapshot[],
    _uptos pg_snapshot[],
    _seens bigint[],
    _limit integer
) returns text
language plpgsql stable
set timezone = 'UTC'
as $$
declare
    _counts integer[] := tocsin.unread_counts_in_order(_recipients);
begin
    return (
        select json_build_object(
            'snapshot', pg_current_snapshot()::text,
            'counts', _counts,
            'unseen', tocsin.unseen_counts_in_order(_recipients, _counts),
            'unknown', array(
                select u.id
                from unnest(_recipients) u (id)
                where not exists (select from tocsin.recipient r where r.recipient_id = u.id)
            ),
            'arrived', (
                select coalesce(json_agg(json_build_object('position', s.position, 'notification', n) order by s.position, n.id), '[]')
                from unnest(_readers, _snapshots, _uptos, _seens) with ordinality s (recipient_id, since, upto, seen, position)
                cross join lateral (
                    select c.notification_id, c.event_id, c.event_type, c.subject, c.created_at, c.read_at
                    from (
                        -- offset 0: without statistics, the planner would read the whole inbox along a partial index
                        select n.*
                        from tocsin.notification n
                        where n.recipient_id = s.recipient_id
                            and n.xid >= pg_snapshot_xmin(s.since)
                        offset 0
                    ) c
                    where c.in_inbox
                        and c.archived_at is null
                        and not pg_visible_in_snapshot(c.xid, s.since)
                        and (
                            s.upto is null
                            or c.notification_id > s.seen
                            or not pg_visible_in_snapshot(c.xid, s.upto)
                        )
                    order by c.notification_id
                    limit _limit
                ) f
                cross join lateral tocsin.to_item(
                    f.notification_id, s.recipient_id, f.event_id, f.event_type, f.subject, f.read_at, f.created_at, false
                ) n
            ),
            'changes', (
                select coalesce(
                    json_agg(
                        json_build_object(
                            'position', s.position,
                            'change', c.change,
                            'notification_ids', c.notification_ids,
                            'acted', case when c.change = 'acted' then tocsin.acted(c.notification_ids[1]) end
                        )
                        order by s.position, c.at
                    ),
                    '[]'
                )
                from unnest(_readers, _snapshots) with ordinality s (recipient_id, since, position)
                join tocsin.inbox_change c on c.recipient_id = s.recipient_id
                    and c.xid >= pg_snapshot_xmin(s.since)
                    and not pg_visible_in_snapshot(c.xid, s.since)
                    and c.change <> 'seen'
            )
        )::text
    );
end
$$;
