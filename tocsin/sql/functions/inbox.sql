-- What a person does in their inbox; each change updates the badge and is sent to the person's other open streams.

-- Records a change for the person's streams (_ids null: of all notifications), and by how much it changed the badge.
create or replace function tocsin.record_inbox_change(_recipient_id text, _change text, _ids bigint[], _unread integer) returns void
language plpgsql
as $$
begin
    if _unread <> 0 then
        insert into tocsin.unread_delta (recipient_id, n)
        values (_recipient_id, _unread);
    end if;
    insert into tocsin.inbox_change (recipient_id, change, notification_ids)
    values (_recipient_id, _change, _ids);
    perform tocsin.wake(array[_recipient_id]);
end
$$;

-- Marks one notification read or unread. Returns whether that changed something.
create or replace function tocsin.mark_read(_recipient_id text, _notification_id bigint, _read boolean) returns boolean
language plpgsql
-- an app's open cancel() may hold the row: the call fails soon, and the client tries again
set lock_timeout = '250ms'
as $$
declare
    _in_inbox boolean;
begin
    update tocsin.notification n
    set read_at = case when _read then clock_timestamp() end
    where n.notification_id = _notification_id
        and n.recipient_id = _recipient_id
        and (n.read_at is null) = _read
    returning n.in_inbox and n.archived_at is null into _in_inbox;
    if not found then
        return false;
    end if;
    if _read then
        perform tocsin.report('notification.read', null, array[_notification_id]);
    end if;
    if _in_inbox then
        perform tocsin.record_inbox_change(
            _recipient_id, case when _read then 'read' else 'unread' end, array[_notification_id], case when _read then -1 else 1 end
        );
    end if;
    return true;
end
$$;

-- Marks everything read that a list could show: unread, of this category, event type or subject where given, and in the list's
-- snapshot. All of them get one read_at, by which it can be undone.
create or replace function tocsin.mark_all_read(
    _recipient_id text,
    _category text,
    _event_type text,
    _as_of pg_snapshot,
    _subject text default null
) returns table (marked integer, read_at timestamptz)
language plpgsql
as $$
#variable_conflict use_column
declare
    _ids bigint[];
    _now timestamptz := clock_timestamp();
begin
    -- in one order, and without rows that are being changed just now: it neither waits nor deadlocks
    _ids := array(
        select n.notification_id
        from tocsin.notification n
        where n.recipient_id = _recipient_id
            and n.in_inbox
            and n.archived_at is null
            and n.read_at is null
            and (_category is null or split_part(n.event_type, '.', 1) = _category)
            and (_event_type is null or n.event_type = _event_type)
            and (_subject is null or n.subject = _subject)
            and (_as_of is null or pg_visible_in_snapshot(n.xid, _as_of))
        order by n.notification_id
        for update skip locked
    );
    if cardinality(_ids) = 0 then
        return query select 0, _now;
        return;
    end if;
    update tocsin.notification n
    set read_at = _now
    where n.notification_id = any (_ids);
    perform tocsin.report('notification.read', null, _ids);
    perform tocsin.record_inbox_change(
        _recipient_id,
        'read',
        case when coalesce(_category, _event_type, _subject) is not null or _as_of is not null then _ids end,
        -cardinality(_ids)
    );
    return query select cardinality(_ids), _now;
end
$$;

-- Undoes mark_all_read(): what has exactly this read_at is unread again. Returns how many.
create or replace function tocsin.undo_mark_all_read(_recipient_id text, _read_at timestamptz) returns integer
language sql
as $$
    select m.marked
    from tocsin.mark_unread(_recipient_id, array(
        select n.notification_id
        from tocsin.notification n
        where n.recipient_id = _recipient_id
            and n.in_inbox
            and n.archived_at is null
            and n.read_at = _read_at
    )) m
$$;

-- Marks those of these notifications unread that are read and in the inbox; skips rows that another transaction is changing.
-- Returns how many, and the transaction, by which it can be undone as long as inbox_change has it.
create or replace function tocsin.mark_unread(_recipient_id text, _notification_ids bigint[]) returns table (marked integer, xid xid8)
language plpgsql
as $$
#variable_conflict use_column
declare
    _ids bigint[] := array(
        select n.notification_id
        from tocsin.notification n
        where n.notification_id = any (_notification_ids)
            and n.recipient_id = _recipient_id
            and n.in_inbox
            and n.archived_at is null
            and n.read_at is not null
        order by n.notification_id
        for update skip locked
    );
begin
    if cardinality(_ids) > 0 then
        update tocsin.notification n
        set read_at = null
        where n.notification_id = any (_ids);
        perform tocsin.record_inbox_change(_recipient_id, 'unread', _ids, cardinality(_ids));
    end if;
    return query select cardinality(_ids), pg_current_xact_id();
end
$$;

-- Undoes mark_unread(): what that transaction marked is read again, as far as it is still unread. Returns how many.
create or replace function tocsin.undo_mark_unread(_recipient_id text, _xid xid8) returns integer
language plpgsql
as $$
declare
    _ids bigint[] := array(
        select n.notification_id
        from tocsin.notification n
        where n.notification_id = any (array(
                select unnest(c.notification_ids)
                from tocsin.inbox_change c
                where c.recipient_id = _recipient_id
                    and c.xid = _xid
                    and c.change = 'unread'
            ))
            and n.recipient_id = _recipient_id
            and n.in_inbox
            and n.archived_at is null
            and n.read_at is null
        order by n.notification_id
        for update skip locked
    );
begin
    perform tocsin.mark_notifications_read(_recipient_id, _ids);
    return cardinality(_ids);
end
$$;
