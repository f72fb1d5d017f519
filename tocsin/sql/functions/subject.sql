-- Subjects: what a notification is about. An app marks what was about a thing as read, withdraws it, or replaces it.
--
-- An open transaction can't see rows of another one, and must not wait for one that holds a row. So a call does at once what
-- it can, and leaves the rest as a pending change, which the leader applies after the commit (docs/adr/0067-subjects.md).

create or replace function tocsin.check_subject(_subject text) returns void
language plpgsql
as $$
begin
    if _subject is null or _subject !~ '^[A-Za-z0-9._:/-]{1,200}$' then
        perform tocsin.raise_invalid('subject', 'subject is not 1 to 200 characters of A-Z a-z 0-9 . _ : / -', 'Name the thing that it is about, such as forum.thread:42.');
    end if;
end
$$;

-- Marks a person's notifications of a subject as read; for an app that shows the thing. Returns how many.
create or replace function tocsin.mark_read(recipient text, subject text) returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    _ids bigint[];
    _busy bigint[];
begin
    perform tocsin.check_subject($2);
    perform tocsin.check_recipients_known(array[$1], 'recipient');
    _ids := array(
        select n.notification_id
        from tocsin.notification n
        where n.recipient_id = $1
            and n.subject = $2
            and n.read_at is null
            and n.archived_at is null
            and n.in_inbox
        order by n.notification_id
        for update skip locked
    );
    _busy := array(
        select n.notification_id
        from tocsin.notification n
        where n.recipient_id = $1
            and n.subject = $2
            and n.read_at is null
            and n.archived_at is null
            and n.in_inbox
            and n.notification_id <> all (_ids)
    );
    if cardinality(_busy) > 0 then
        insert into tocsin.pending_change (change, recipient_id, notification_ids)
        values ('read', $1, _busy);
        perform tocsin.wake();
    end if;
    perform tocsin.mark_notifications_read($1, _ids);
    return cardinality(_ids);
end
$$;

-- Marks notifications of a person as read that are locked already.
create or replace function tocsin.mark_notifications_read(_recipient_id text, _ids bigint[]) returns void
language plpgsql
as $$
begin
    if cardinality(_ids) > 0 then
        update tocsin.notification n
        set read_at = clock_timestamp()
        where n.notification_id = any (_ids);
        perform tocsin.report('notification.read', null, _ids);
        insert into tocsin.unread_delta (recipient_id, n)
        values (_recipient_id, -cardinality(_ids));
        insert into tocsin.inbox_change (recipient_id, change, notification_ids)
        values (_recipient_id, 'read', _ids);
        perform tocsin.wake(array[_recipient_id]);
    end if;
end
$$;

-- Cancels all events of a subject, or those of one type: the thing is gone. Also scheduled ones, and those that another
-- transaction reported before this one's commit and commits later; not those that its own transaction reports afterwards. Returns how many events it found and cancelled.
create or replace function tocsin.withdraw(subject text, event_type text default null) returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform tocsin.check_subject($1);
    if $2 is not null and not exists (select from tocsin.event_type t where t.event_type = $2) then
        perform tocsin.raise_unknown_event_type($2);
    end if;
    insert into tocsin.pending_change (change, subject, event_type)
    values ('withdraw', $1, $2);
    perform tocsin.wake();
    return (
        select c.events
        from tocsin.cancel_events(array(
            select e.event_id
            from tocsin.event e
            where e.subject = $1
                and e.cancelled_at is null
                and ($2 is null or e.event_type = $2)
        ), true) c
    );
end
$$;

-- Just before its commit, a withdrawal notes the time: events that are reported later stay.
create or replace function tocsin.note_withdrawal_time() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update tocsin.pending_change c
    set made_at = clock_timestamp()
    where c.pending_change_id = new.pending_change_id;
    return null;
end
$$;

do $$
begin
    -- a constraint trigger can't be created or replaced
    if not exists (select from pg_trigger t where t.tgname = 'note_withdrawal_time') then
        create constraint trigger note_withdrawal_time
        after insert on tocsin.pending_change
        deferrable initially deferred
        for each row
        when (new.change = 'withdraw')
        execute function tocsin.note_withdrawal_time();
    end if;
end
$$;

-- Takes out what an event replaces: earlier unread notifications of the same person, type and subject leave inbox and badge,
-- and their deliveries and waiting digest entries stop. Skips rows that another transaction has locked. Returns how many left.
-- `_by`: what only these of the event's notifications replace.
create or replace function tocsin.replace_earlier(_event_id bigint, _by bigint[] default null) returns integer
language plpgsql
as $$
declare
    _now timestamptz := clock_timestamp();
    _ids bigint[];
    _listed bigint[];
    _moved text[];
begin
    _by := coalesce(_by, tocsin.notifications_of(_event_id));
    select array_agg(r.notification_id), array_agg(r.notification_id) filter (where r.in_inbox)
    into _ids, _listed
    from (
        select n.notification_id, n.in_inbox
        from tocsin.notification o
        join tocsin.notification n
            on n.recipient_id = o.recipient_id
            and n.subject = o.subject
            and n.event_type = o.event_type
            and n.notification_id < o.notification_id
        where o.notification_id = any (_by)
            and n.read_at is null
            and n.archived_at is null
            and n.replaced_by is null
        order by n.notification_id
        for update of n skip locked
    ) r;
    if _ids is null then
        return 0;
    end if;
    update tocsin.notification n
    set in_inbox = false, replaced_by = _event_id
    where n.notification_id = any (_ids);
    with unread as (
        insert into tocsin.unread_delta (recipient_id, n)
        select n.recipient_id, -count(*)
        from tocsin.notification n
        where n.notification_id = any (_listed)
        group by n.recipient_id
    ),
    changed as (
        insert into tocsin.inbox_change (recipient_id, change, notification_ids)
        select n.recipient_id, 'archived', array_agg(n.notification_id)
        from tocsin.notification n
        where n.notification_id = any (_listed)
        group by n.recipient_id
        returning recipient_id
    )
    select array_agg(c.recipient_id)
    into _moved
    from changed c;
    delete from tocsin.digest_item i
    where i.notification_id = any (_ids)
        and i.digest_id is null;
    with stopped as (
        -- states: queued | deferred -> cancelled
        update tocsin.delivery d
        set state = 'cancelled',
            reason = 'replaced',
            due_at = null,
            settled_at = _now
        from (
            select w.delivery_id
            from tocsin.delivery w
            where w.notification_id = any (_ids)
                and w.state in ('queued', 'deferred')
            -- the check right before sending stops one that is being claimed
            for update skip locked
        ) waiting
        where d.delivery_id = waiting.delivery_id
        returning d.delivery_id
    )
    insert into tocsin.settled_batch (settled_at, delivery_ids)
    select _now, array_agg(s.delivery_id)
    from stopped s
    having count(*) > 0;
    perform tocsin.wake(_moved);
    return cardinality(_ids);
end
$$;

create or replace function tocsin.notifications_of(_event_id bigint) returns bigint[]
language sql stable
as $$
    select array(select n.notification_id from tocsin.notification n where n.event_id = _event_id)
$$;

-- Applies the pending changes that were committed. Waits for no other transaction: a change that meets a locked row is tried
-- again later. Returns how many are left.
create or replace function tocsin.apply_pending_changes() returns integer
language plpgsql
set lock_timeout = '5ms'
as $$
declare
    _change tocsin.pending_change;
    _over boolean;
begin
    for _change in
        select c.*
        from tocsin.pending_change c
        order by c.pending_change_id
        limit 1000
        for update skip locked
    loop
        if _change.horizon is null then
            _change.horizon := pg_snapshot_xmax(pg_current_snapshot());
            update tocsin.pending_change c
            set horizon = _change.horizon
            where c.pending_change_id = _change.pending_change_id;
        end if;
        -- read before the rows: then these are all that there can be. A call takes its time a moment before its transaction
        -- gets an id, which the second covers.
        _over := pg_snapshot_xmin(pg_current_snapshot()) >= _change.horizon
            and _change.made_at not between clock_timestamp() - interval '1 second' and clock_timestamp();
        begin
            if tocsin.apply_pending_change(_change) and _over then
                delete from tocsin.pending_change c
                where c.pending_change_id = _change.pending_change_id;
            end if;
        exception when lock_not_available then
            null;
        end;
    end loop;
    return (select count(*) from (select from tocsin.pending_change c limit 1000) c);
end
$$;

-- Applies one. Returns whether nothing of it was left out because it was locked.
create or replace function tocsin.apply_pending_change(_change tocsin.pending_change) returns boolean
language plpgsql
as $$
declare
    _ids bigint[];
begin
    case _change.change
        when 'withdraw' then
            perform tocsin.cancel_events(array(
                select e.event_id
                from tocsin.event e
                where e.subject = _change.subject
                    and e.cancelled_at is null
                    and e.created_at < _change.made_at
                    -- the call itself cancelled what its own transaction had reported before it; what follows is new
                    and e.xid <> _change.xid
                    and (_change.event_type is null or e.event_type = _change.event_type)
            ), true);
            return true;
        when 'replace' then
            _ids := coalesce(_change.notification_ids, tocsin.notifications_of(_change.event_id));
            perform tocsin.replace_earlier(_change.event_id, _ids);
            return not exists (
                select
                from tocsin.notification o
                join tocsin.notification n
                    on n.recipient_id = o.recipient_id
                    and n.subject = o.subject
                    and n.event_type = o.event_type
                    and n.notification_id < o.notification_id
                where o.notification_id = any (_ids)
                    and n.read_at is null
                    and n.archived_at is null
                    and n.replaced_by is null
            );
        when 'read' then
            _ids := array(
                select n.notification_id
                from tocsin.notification n
                where n.notification_id = any (_change.notification_ids)
                    and n.recipient_id = _change.recipient_id
                    and n.read_at is null
                    and n.archived_at is null
                    and n.in_inbox
                for update
            );
            perform tocsin.mark_notifications_read(_change.recipient_id, _ids);
            return true;
        when 'create' then
            perform tocsin.notify_created_recipient(_change.event_id, _change.recipient_id);
            delete from tocsin.pending_change c
            where c.pending_change_id = _change.pending_change_id;
            return false;
    end case;
end
$$;

-- Creates a recipient of an event whom another transaction was creating during the call, and notifies them of it.
create or replace function tocsin.notify_created_recipient(_event_id bigint, _recipient_id text) returns void
language plpgsql
as $$
declare
    _event tocsin.event;
    _type tocsin.event_type;
begin
    insert into tocsin.recipient (recipient_id)
    values (_recipient_id)
    on conflict do nothing;
    select e.* into _event
    from tocsin.event e
    where e.event_id = _event_id
        and e.cancelled_at is null
        and e.fanned_out_at is not null
    for update;
    if found and not exists (select from tocsin.notification n where n.event_id = _event_id and n.recipient_id = _recipient_id) then
        select t.* into _type
        from tocsin.event_type t
        where t.event_type = _event.event_type;
        perform tocsin.fan_out(_event_id, _type, array[_recipient_id], null, clock_timestamp(), _event.subject);
        if _event.replaces then
            perform tocsin.replace_earlier(_event_id);
        end if;
        perform tocsin.wake(array[_recipient_id]);
    end if;
end
$$;

-- A page of a person's inbox, newest first, for pages that an app renders on its server. `before` is the cursor of the last
-- row of the page before; `unread`: true for unread ones only, false for read ones only.
create or replace function tocsin.inbox(
    recipient text,
    max_rows integer default 20,
    before text default null,
    unread boolean default null
) returns table (
    notification_id bigint,
    event_type text,
    title text,
    body text,
    action_url text,
    metadata jsonb,
    initiator text,
    subject text,
    read_at timestamptz,
    created_at timestamptz,
    cursor text
)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    _place text[];
begin
    perform tocsin.check_recipients_known(array[$1], 'recipient');
    if $2 is null or $2 not between 1 and 1000 then
        perform tocsin.raise_invalid('max_rows', 'max_rows is not 1 to 1000', 'Ask for the next page with before.');
    end if;
    _place := regexp_match($3, '^([0-9]{1,17})[.]([0-9]{1,18})$');
    if $3 is not null and _place is null then
        perform tocsin.raise_invalid('before', 'before is not a cursor of this list', 'Pass the cursor of a row as it is, or null for the first page.');
    end if;
    return query
        select
            i.id,
            i.event_type,
            i.title,
            i.body,
            i.action_url,
            i.metadata,
            i.initiator,
            i.subject,
            i.read_at,
            i.created_at,
            (extract(epoch from i.created_at) * 1000000)::bigint || '.' || i.id
        from tocsin.notification_item i
        where i.recipient_id = $1
            and i.listed
            and ($4 is null or i.read = not $4)
            and (i.created_at, i.id) < (
                coalesce('epoch'::timestamptz + _place[1]::bigint * interval '1 microsecond', 'infinity'),
                coalesce(_place[2]::bigint, 9223372036854775807)
            )
        order by i.created_at desc, i.id desc
        limit $2;
end
$$;
