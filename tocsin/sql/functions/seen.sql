-- What a person has seen: one mark a person, the snapshot of the list that they looked at last. An unread notification is unseen
-- if its transaction is not covered by the mark. So a mark is one row and changes no notification, and what was committed while
-- the list was open is unseen, whenever its transaction began. docs/adr/0068-seen.md has the alternatives.

-- Whether a snapshot covers more than another one of the same database: of two, one always covers all that the other covers.
create or replace function tocsin.is_later_snapshot(_snapshot pg_snapshot, _other pg_snapshot) returns boolean
language sql immutable
as $$
    select pg_snapshot_xmax(_snapshot) > pg_snapshot_xmax(_other)
        or pg_snapshot_xmax(_snapshot) = pg_snapshot_xmax(_other)
        and (select count(*) from pg_snapshot_xip(_snapshot)) < (select count(*) from pg_snapshot_xip(_other))
$$;

-- Moves a person's mark forward, to now if _as_of is null; one that is older than the mark changes nothing. Nothing is stored
-- for somebody who is not a recipient.
create or replace function tocsin.mark_seen(_recipient_id text, _as_of pg_snapshot) returns void
language plpgsql
set lock_timeout = '250ms'
as $$
declare
    _mark pg_snapshot := coalesce(_as_of, pg_current_snapshot());
    _before pg_snapshot;
begin
    if pg_snapshot_xmax(_mark) > pg_snapshot_xmax(pg_current_snapshot()) then
        perform tocsin.raise_invalid('as_of', 'as_of is not of a list of this installation', 'Pass the as_of of a list as it is, or leave it out for now.');
    end if;
    select m.snapshot into _before
    from tocsin.seen_mark m
    where m.recipient_id = _recipient_id
    for update;
    insert into tocsin.seen_mark as m (recipient_id, snapshot, moved_at)
    select r.recipient_id, _mark, clock_timestamp()
    from tocsin.recipient r
    where r.recipient_id = _recipient_id
    on conflict (recipient_id) do update
    set snapshot = excluded.snapshot, moved_at = excluded.moved_at
    where tocsin.is_later_snapshot(excluded.snapshot, m.snapshot);
    if not found then
        return;
    end if;
    if exists (
        select
        from tocsin.notification n
        where n.recipient_id = _recipient_id
            and n.in_inbox
            and n.archived_at is null
            and n.read_at is null
            and pg_visible_in_snapshot(n.xid, _mark)
            and (_before is null or not pg_visible_in_snapshot(n.xid, _before))
    ) then
        perform tocsin.record_inbox_change(_recipient_id, 'seen', null, 0);
    end if;
end
$$;

-- Exact counts of what several people have not seen, in their order; _counts are their unread counts of the same snapshot.
--
-- Read are the notifications that came after a person's mark, mostly few.
create or replace function tocsin.unseen_counts_in_order(_recipients text[], _counts integer[]) returns integer[]
language plpgsql stable
as $$
begin
    if not exists (select from tocsin.seen_mark m where m.recipient_id = any (_recipients)) then
        return _counts;
    end if;
    return (
        select array_agg(
            case
                when m.snapshot is null then u.n
                when s.later > 1000 then tocsin.count_unseen_of_many(u.recipient_id, m.snapshot, u.n)
                else s.unseen
            end
            order by u.position
        )
        from unnest(_recipients, _counts) with ordinality u (recipient_id, n, position)
        left join tocsin.seen_mark m using (recipient_id)
        cross join lateral (
            select
                count(*)::integer as later,
                (count(*) filter (where l.unread))::integer as unseen
            from (
                select n.in_inbox and n.archived_at is null and n.read_at is null as unread
                from tocsin.notification n
                where u.n > 0
                    and n.recipient_id = u.recipient_id
                    and n.xid >= pg_snapshot_xmin(m.snapshot)
                    and not pg_visible_in_snapshot(n.xid, m.snapshot)
                limit 1001
            ) l
        ) s
    );
end
$$;

-- Returns how many of a person's _unread notifications are unseen, where more than 1,000 came after the mark: those that came
-- before it are counted if they are fewer than that, and else all unread ones are read.
create or replace function tocsin.count_unseen_of_many(_recipient_id text, _mark pg_snapshot, _unread integer) returns integer
language plpgsql stable
as $$
declare
    _earlier integer;
    _seen integer;
begin
    select
        count(*),
        count(*) filter (where e.unread)
    into _earlier, _seen
    from (
        select n.in_inbox and n.archived_at is null and n.read_at is null as unread
        from tocsin.notification n
        where n.recipient_id = _recipient_id
            and n.xid < pg_snapshot_xmax(_mark)
            and pg_visible_in_snapshot(n.xid, _mark)
        limit 1001
    ) e;
    if _earlier <= 1000 then
        return _unread - _seen;
    end if;
    return (
        select count(*)
        from tocsin.notification n
        where n.recipient_id = _recipient_id
            and n.in_inbox
            and n.archived_at is null
            and n.read_at is null
            and not pg_visible_in_snapshot(n.xid, _mark)
    );
end
$$;

-- Unread counts of several people in their order, and then their unseen counts.
create or replace function tocsin.badges_in_order(_recipients text[]) returns integer[]
language plpgsql stable
as $$
declare
    _counts integer[] := tocsin.unread_counts_in_order(_recipients);
begin
    return _counts || tocsin.unseen_counts_in_order(_recipients, _counts);
end
$$;
