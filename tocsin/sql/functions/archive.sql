-- The archive: what a person took out of their inbox. It is found by its id and in the list of archived ones, and can be brought
-- back as it was.

-- Removes one notification from list and badge; false where there is none.
create or replace function tocsin.archive(_recipient_id text, _notification_id bigint) returns boolean
language plpgsql
set lock_timeout = '250ms'
as $$
declare
    _was_unread boolean;
begin
    update tocsin.notification n
    set archived_at = clock_timestamp()
    where n.notification_id = _notification_id
        and n.recipient_id = _recipient_id
        and n.archived_at is null
        and n.in_inbox
    returning n.read_at is null into _was_unread;
    if not found then
        return false;
    end if;
    perform tocsin.record_inbox_change(_recipient_id, 'archived', array[_notification_id], -_was_unread::integer);
    return true;
end
$$;

-- Brings one back. Returns whether it is in the inbox now: what was cancelled or replaced stays out.
create or replace function tocsin.unarchive(_recipient_id text, _notification_id bigint) returns boolean
language plpgsql
set lock_timeout = '250ms'
as $$
declare
    _is_unread boolean;
begin
    update tocsin.notification n
    set archived_at = null
    where n.notification_id = _notification_id
        and n.recipient_id = _recipient_id
        and n.archived_at is not null
        and n.in_inbox
    returning n.read_at is null into _is_unread;
    if found then
        perform tocsin.record_inbox_change(_recipient_id, 'unarchived', array[_notification_id], _is_unread::integer);
    end if;
    return exists (
        select
        from tocsin.notification n
        where n.notification_id = _notification_id
            and n.recipient_id = _recipient_id
            and n.archived_at is null
            and n.in_inbox
    );
end
$$;

-- Archives everything that a list with these filters could show. All of them get one archived_at, by which it can be undone.
create or replace function tocsin.archive_all(
    _recipient_id text,
    _read boolean,
    _category text,
    _event_type text,
    _subject text,
    _as_of pg_snapshot
) returns table (archived integer, archived_at timestamptz)
language plpgsql
as $$
#variable_conflict use_column
declare
    _now timestamptz := clock_timestamp();
    _ids bigint[] := array(
        select n.notification_id
        from tocsin.notification n
        where n.recipient_id = _recipient_id
            and n.in_inbox
            and n.archived_at is null
            and (n.read_at is not null) = coalesce(_read, n.read_at is not null)
            and split_part(n.event_type, '.', 1) = coalesce(_category, split_part(n.event_type, '.', 1))
            and n.event_type = coalesce(_event_type, n.event_type)
            and (_subject is null or n.subject = _subject)
            and coalesce(pg_visible_in_snapshot(n.xid, _as_of), true)
        order by n.notification_id
        for update skip locked
    );
begin
    perform tocsin.set_archived_at(_recipient_id, _ids, _now);
    return query select cardinality(_ids), _now;
end
$$;

-- Undoes archive_all(): what has exactly this archived_at is back as it was, read or unread. Returns how many.
create or replace function tocsin.undo_archive_all(_recipient_id text, _archived_at timestamptz) returns integer
language plpgsql
as $$
declare
    _ids bigint[] := array(
        select n.notification_id
        from tocsin.notification n
        where n.recipient_id = _recipient_id
            and n.in_inbox
            and n.archived_at = _archived_at
        order by n.notification_id
        for update skip locked
    );
begin
    perform tocsin.set_archived_at(_recipient_id, _ids, null);
    return cardinality(_ids);
end
$$;

-- Archives notifications of a person that are locked already, or brings them back (null). Announces each of up to
-- 1,000 to streams; of more, that the list has to be read again.
create or replace function tocsin.set_archived_at(_recipient_id text, _ids bigint[], _archived_at timestamptz) returns void
language plpgsql
as $$
declare
    _unread integer;
begin
    if cardinality(_ids) = 0 then
        return;
    end if;
    with changed as (
        update tocsin.notification n
        set archived_at = _archived_at
        where n.notification_id = any (_ids)
        returning n.read_at is null as unread
    )
    select count(*) filter (where c.unread)
    into _unread
    from changed c;
    perform tocsin.record_inbox_change(
        _recipient_id,
        case when _archived_at is null then 'unarchived' else 'archived' end,
        case when cardinality(_ids) <= 1000 then _ids end,
        case when _archived_at is null then _unread else -_unread end
    );
end
$$;
