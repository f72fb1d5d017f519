-- Clean-up: deletes one bounded batch of old rows and what belongs to them. None of them is in a badge, but for those that are
-- unread for too long.

-- Notifications that were read or archived before _before, or that were made before it and are in no inbox: the first ones since
-- _after. Returns since when the last of them is over, and how many they are; fewer than _limit means that there are no more.
--
-- The next batch begins there (_after), or it would read all rows that the batches before have deleted: while a snapshot is
-- open that is older, their index entries stay.
create or replace function tocsin.clean_up_notifications(
    _after timestamptz, _before timestamptz, _limit integer, out last timestamptz, out deleted integer
)
language plpgsql
as $$
declare
    _ids bigint[];
    _events bigint[];
begin
    with gone as (
        delete from tocsin.notification n
        -- by ctid, not by key: they are locked where they were found
        where n.ctid = any (array(
            select o.ctid
            from tocsin.notification o
            where (o.read_at is not null or o.archived_at is not null or not o.in_inbox)
                and coalesce(o.read_at, o.archived_at, case when not o.in_inbox then o.created_at end) >= _after
                and coalesce(o.read_at, o.archived_at, case when not o.in_inbox then o.created_at end) < _before
            order by coalesce(o.read_at, o.archived_at, case when not o.in_inbox then o.created_at end)
            limit _limit
            -- one that is being marked just now is left for the next time
            for update skip locked
        ))
        returning
            n.notification_id,
            n.event_id,
            coalesce(n.read_at, n.archived_at, case when not n.in_inbox then n.created_at end) as over_at
    )
    select array_agg(g.notification_id), array_agg(distinct g.event_id), max(g.over_at), count(*)
    into _ids, _events, last, deleted
    from gone g;
    perform tocsin.clean_up_after_notifications(_ids, _events);
end
$$;

-- Deletes what belonged to deleted notifications, and those of their events that have no other.
create or replace function tocsin.clean_up_after_notifications(_ids bigint[], _events bigint[]) returns void
language plpgsql
as $$
declare
    _empty bigint[];
begin
    perform tocsin.delete_deliveries(array(select d.delivery_id from tocsin.delivery d where d.notification_id = any (_ids)));
    delete from tocsin.digest_item i
    where i.notification_id = any (_ids);
    delete from tocsin.action a
    where a.notification_id = any (_ids);
    _empty := array(
        select u.event_id
        from unnest(_events) u (event_id)
        where not exists (select from tocsin.notification n where n.event_id = u.event_id)
    );
    -- those to targets of the topic
    perform tocsin.delete_deliveries(array(select d.delivery_id from tocsin.delivery d where d.event_id = any (_empty)));
    delete from tocsin.event e where e.event_id = any (_empty);
end
$$;

-- A page of notifications by id, after the id _after: which are unread for longer than their event type's
-- unread_retention, or else _kept, at _now (null: they are kept for ever), and which are too new for any of these times.
create or replace function tocsin.unread_for_too_long(_after bigint, _now timestamptz, _kept interval, _limit integer)
returns table (notification_id bigint, is_over boolean, is_new boolean)
language sql stable
as $$
    select
        p.notification_id,
        coalesce(
            p.read_at is null
            and p.archived_at is null
            and p.in_inbox
            and p.created_at < _now - coalesce(t.unread_retention, _kept),
            false
        ),
        p.created_at >= _now - l.least
    from (select least(_kept, min(t.unread_retention)) as least from tocsin.event_type t) l
    cross join lateral (
        select n.*
        from tocsin.notification n
        where n.notification_id > _after
            and l.least is not null
        order by n.notification_id
        limit _limit
    ) p
    join tocsin.event_type t using (event_type)
$$;

-- Deletes those of one page that are unread for too long; they leave their people's inbox and badge. Skips rows that another
-- transaction has locked. Returns the page's last id, null where no later page can have any, and how many it deleted.
create or replace function tocsin.clean_up_unread(
    _after bigint, _now timestamptz, _kept interval, _limit integer, out last_id bigint, out deleted integer
)
language plpgsql
as $$
declare
    _over bigint[];
    _events bigint[];
    _recipients text[];
begin
    select
        case when not bool_and(p.is_new) then max(p.notification_id) end,
        array_agg(p.notification_id) filter (where p.is_over)
    into last_id, _over
    from tocsin.unread_for_too_long(_after, _now, _kept, _limit) p;
    with gone as (
        delete from tocsin.notification n
        where n.ctid = any (array(
            select o.ctid
            from tocsin.notification o
            where o.notification_id = any (_over)
                and o.read_at is null
                and o.archived_at is null
                and o.in_inbox
            order by o.notification_id
            for update skip locked
        ))
        returning n.notification_id, n.event_id, n.recipient_id
    ),
    left_badge as (
        insert into tocsin.unread_delta (recipient_id, n)
        select g.recipient_id, -count(*)
        from gone g
        where g.recipient_id is not null
        group by g.recipient_id
    ),
    left_inbox as (
        insert into tocsin.inbox_change (recipient_id, change, notification_ids)
        select g.recipient_id, 'archived', array_agg(g.notification_id)
        from gone g
        where g.recipient_id is not null
        group by g.recipient_id
    )
    select array_agg(g.notification_id), array_agg(distinct g.event_id), array_agg(distinct g.recipient_id), count(*)
    into _over, _events, _recipients, deleted
    from gone g;
    if deleted > 0 then
        perform tocsin.clean_up_after_notifications(_over, _events);
        perform tocsin.wake(array_remove(_recipients, null));
    end if;
end
$$;

-- Digests made before _before, with their deliveries. Returns how many.
create or replace function tocsin.clean_up_digests(_before timestamptz, _limit integer) returns integer
language sql
as $$
    with gone as (
        delete from tocsin.digest g
        where g.digest_id in (
            select o.digest_id
            from tocsin.digest o
            where o.created_at < _before
            order by o.created_at
            limit _limit
            for update skip locked
        )
        returning g.digest_id
    ),
    deliveries as (
        delete from tocsin.delivery d
        using gone g
        where d.digest_id = g.digest_id
        returning d.delivery_id
    ),
    attempts as (
        delete from tocsin.attempt a
        using deliveries d
        where a.delivery_id = d.delivery_id
    ),
    reports as (
        delete from tocsin.mail_event m
        using deliveries d
        where m.delivery_id = d.delivery_id
    )
    select count(*)::integer
    from gone
$$;

-- Joined messages that were due before yesterday, at `_now`. Returns how many.
create or replace function tocsin.clean_up_joined_messages(_now timestamptz, _limit integer) returns integer
language sql
as $$
    with gone as (
        delete from tocsin.joined_message j
        where j.ctid in (
            select o.ctid
            from tocsin.joined_message o
            where o.due_at < _now - interval '1 day'
            limit _limit
            for update skip locked
        )
        returning 1
    )
    select count(*)::integer
    from gone
$$;

-- Of one page of the events from before _before, in the order of their times and ids, deletes those that have no notifications, or no
-- longer. Returns the page's last position, null where there are no later events, and how many it deleted.
create or replace function tocsin.clean_up_events(
    _after timestamptz, _after_id bigint, _before timestamptz, _limit integer,
    out last timestamptz, out last_id bigint, out deleted integer
)
language plpgsql
as $$
declare
    _page bigint[];
    _gone bigint[];
begin
    select array_agg(p.event_id order by p.created_at, p.event_id), max(p.created_at)
    into _page, last
    from (
        select e.event_id, e.created_at
        from tocsin.event e
        where (e.created_at, e.event_id) > (_after, _after_id)
            and e.created_at < _before
        order by e.created_at, e.event_id
        limit _limit
    ) p;
    if cardinality(_page) = _limit then
        last_id := _page[_limit];
    else
        last := null;
    end if;
    with gone as (
        delete from tocsin.event e
        where e.event_id in (
            select o.event_id
            from tocsin.event o
            where o.event_id = any (_page)
                and (o.fanned_out_at is not null or o.cancelled_at is not null)
                and not exists (select from tocsin.notification n where n.event_id = o.event_id)
            for update skip locked
        )
        returning e.event_id
    )
    select coalesce(array_agg(g.event_id), '{}')
    into _gone
    from gone g;
    deleted := cardinality(_gone);
    if deleted > 0 then
        -- to targets of the topic
        perform tocsin.delete_deliveries(array(select d.delivery_id from tocsin.delivery d where d.event_id = any (_gone)));
    end if;
end
$$;

-- Idempotency keys older than a day, and tickets whose token has expired. Returns how many.
create or replace function tocsin.clean_up_keys(_now timestamptz, _limit integer) returns integer
language sql
as $$
    with keys as (
        delete from tocsin.idempotency i
        where (i.caller, i.key) in (
            select o.caller, o.key
            from tocsin.idempotency o
            where o.created_at < _now - interval '24 hours'
            limit _limit
            for update skip locked
        )
        returning 1
    ),
    tickets as (
        delete from tocsin.stream_ticket t
        where t.hash in (
            select o.hash
            from tocsin.stream_ticket o
            where o.expires_at < _now
            limit _limit
            for update skip locked
        )
        returning 1
    )
    select greatest((select count(*) from keys), (select count(*) from tickets))::integer
$$;

-- Pushes that corrected a badge, two days after they were settled, which takes a day at most. Returns how many.
create or replace function tocsin.clean_up_badge_pushes(_now timestamptz, _limit integer) returns integer
language sql
as $$
    with gone as (
        delete from tocsin.delivery d
        where d.delivery_id in (
            select o.delivery_id
            from tocsin.delivery o
            where coalesce(o.event_id, o.digest_id) is null
                and o.target_id is null
                and o.created_at < _now - interval '2 days'
                and o.settled_at < _now - interval '2 days'
            order by o.created_at
            limit _limit
            for update skip locked
        )
        returning d.delivery_id
    ),
    attempts as (
        delete from tocsin.attempt a
        using gone g
        where a.delivery_id = g.delivery_id
    )
    select count(*)::integer
    from gone
$$;

-- Disables devices that no app has registered for 270 days: Google's tokens expire by then, and an app on iOS registers at
-- each start. The rows stay, with the reason; registering one again enables it. Returns how many.
create or replace function tocsin.disable_stale_devices(_now timestamptz, _limit integer) returns integer
language sql
as $$
    with stale as (
        update tocsin.device v
        set disabled_at = _now, disabled_reason = 'stale'
        where v.device_id in (
            select o.device_id
            from tocsin.device o
            where o.disabled_at is null
                and o.provider <> 'web_push'
                and o.registered_at < _now - interval '270 days'
            limit _limit
            -- one that is being registered just now is not stale
            for update skip locked
        )
        returning 1
    )
    select count(*)::integer
    from stale
$$;
