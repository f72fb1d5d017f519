-- The badge: a counter that no app's transaction updates.
--
-- A row that each notify() updates would be locked as long as an app's transaction is open. So each change is appended
-- (unread_delta), and the leader folds committed changes into unread_counter a few times a second. In any one snapshot the
-- counter and the changes that are still there add up to count(*). `folded_before` keeps reads away from the dead rows that
-- folding leaves: every change below it is in the counter.

create or replace function tocsin.unread_count(recipient text) returns integer
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    _count integer;
    _folded_before xid8;
    _changed boolean;
begin
    -- mostly there is no change: to find that out here takes less than a statement with a sum
    select
        c.n,
        c.folded_before,
        exists (
            select
            from tocsin.unread_delta d
            where d.recipient_id = recipient
                and d.xid >= c.folded_before
        )
    into _count, _folded_before, _changed
    from tocsin.unread_counter c
    where c.recipient_id = recipient;
    if not _changed then
        return _count;
    end if;
    return coalesce(_count, 0) + coalesce(
        (
            select sum(d.n)::integer
            from tocsin.unread_delta d
            where d.recipient_id = recipient
                and d.xid >= coalesce(_folded_before, '0')
        ),
        0
    );
end
$$;

-- Exact counts of several people, in their order.
--
-- A fold takes the changes of all people that its snapshot saw, so no change is older than the latest `folded_before` of any
-- counter, and one look-up of the few changes since then is enough for all people. Planning takes ten times as long as
-- reading, so the plans are kept. A plan may be made while there are hardly any changes, when reading the whole table looks
-- cheap, and then a fan-out adds a hundred thousand: so only indexes are used.
create or replace function tocsin.unread_counts_in_order(_recipients text[]) returns integer[]
language plpgsql stable
as $$
declare
    _counts integer[];
    _folded_before xid8;
begin
    select array_agg(coalesce(c.n, 0) order by u.position), coalesce(max(c.folded_before), '0')
    into _counts, _folded_before
    from unnest(_recipients) with ordinality u (recipient_id, position)
    left join tocsin.unread_counter c using (recipient_id);
    if exists (
        select
        from tocsin.unread_delta d
        where d.recipient_id = any (_recipients)
            and d.xid >= _folded_before
    ) then
        select array_agg(u.n + coalesce(d.n, 0) order by u.position)
        into _counts
        from unnest(_recipients, _counts) with ordinality u (recipient_id, n, position)
        left join (
            select d.recipient_id, sum(d.n)::integer as n
            from tocsin.unread_delta d
            where d.recipient_id = any (_recipients)
                and d.xid >= _folded_before
            group by d.recipient_id
        ) d using (recipient_id);
    end if;
    return _counts;
end
$$;

create or replace function tocsin.unread_counts(_recipients text[])
returns table (recipient_id text, n integer)
language sql stable
as $$
    select u.recipient_id, u.n
    from unnest($1, tocsin.unread_counts_in_order($1)) u (recipient_id, n)
$$;

-- Folds the changes that the given snapshot saw, which were announced to the streams. Returns how many. `_folded` is the
-- snapshot of the fold before, if the same session made it: changes from before it are gone, and while an old snapshot of
-- another session keeps their dead rows, these are not read again each time.
create or replace function tocsin.fold_unread(_announced pg_snapshot, _folded pg_snapshot default null) returns integer
language sql
as $$
    with gone as (
        delete from tocsin.unread_delta d
        where d.n <> 0
            and d.xid < pg_snapshot_xmax(_announced)
            and d.xid >= coalesce(pg_snapshot_xmin(_folded), '0')
            and pg_visible_in_snapshot(d.xid, _announced)
        returning d.recipient_id, d.n
    ),
    summed as (
        select g.recipient_id, sum(g.n)::integer as n, count(*)::integer as changes
        from gone g
        group by g.recipient_id
        -- in one order, so that an old and a new leader can't deadlock
        order by g.recipient_id
    ),
    folded as (
        insert into tocsin.unread_counter as c (recipient_id, n, folded_before)
        select s.recipient_id, s.n, pg_snapshot_xmin(_announced)
        from summed s
        on conflict (recipient_id) do update
        set n = c.n + excluded.n, folded_before = greatest(c.folded_before, excluded.folded_before)
    )
    select coalesce(sum(s.changes), 0)::integer
    from summed s
$$;

-- Transaction ids of another cluster (after a dump and restore) mean nothing here: they are reset. Returns whether any were.
create or replace function tocsin.reset_foreign_xids() returns boolean
language plpgsql
as $$
declare
    _foreign boolean;
begin
    -- Snapshot and search in one statement: a later one would see rows committed after the snapshot's end.
    select
        exists (select from tocsin.unread_counter c where c.folded_before > s.next)
        or exists (select from tocsin.unread_delta d where d.n <> 0 and d.xid > s.next)
        or exists (select from tocsin.inbox_change c where c.xid > s.next)
        or exists (select from tocsin.event_queue l where l.xid > s.next)
        or exists (select from tocsin.address_owner c where c.xid > s.next)
        or exists (select from tocsin.pending_change c where c.horizon > s.next)
        or exists (select from tocsin.badge_push_progress m where pg_snapshot_xmax(m.snapshot) > s.next)
        or exists (select from tocsin.seen_mark m where pg_snapshot_xmax(m.snapshot) > s.next)
        or coalesce((select n.xid > s.next from tocsin.notification n order by n.notification_id desc limit 1), false)
    into _foreign
    from (select pg_snapshot_xmax(pg_current_snapshot()) as next) s;
    if not _foreign then
        return false;
    end if;
    update tocsin.unread_counter set folded_before = '0';
    update tocsin.unread_delta set xid = '3';
    update tocsin.inbox_change set xid = '3';
    update tocsin.event_queue set xid = '3';
    update tocsin.address_owner set xid = '3';
    update tocsin.pending_change set horizon = null;
    update tocsin.badge_push_progress set snapshot = pg_current_snapshot();
    update tocsin.seen_mark set snapshot = pg_current_snapshot();
    update tocsin.notification set xid = '3' where xid > pg_snapshot_xmax(pg_current_snapshot());
    return true;
end
$$;
