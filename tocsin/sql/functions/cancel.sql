-- Cancels an event: stops its deliveries that no provider has yet, and removes it from inbox and badge. Returns how many
-- deliveries were stopped.
create or replace function tocsin.cancel(event_id bigint) returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    _event_id alias for $1;
    _cancelled record;
begin
    select c.events, c.stopped
    into _cancelled
    from tocsin.cancel_events(array[_event_id]) c;
    if _cancelled.events = 0 and not exists (select from tocsin.event e where e.event_id = _event_id) then
        perform tocsin.raise_invalid('event_id', format('there is no event %s', coalesce(_event_id::text, 'null')), 'Pass the id that notify() returned.');
    end if;
    return _cancelled.stopped;
end
$$;

-- The same for several events. Returns how many were cancelled now, and how many of their deliveries were stopped.
create or replace function tocsin.cancel_events(_event_ids bigint[], _withdrawn boolean default false, out events integer, out stopped integer)
language plpgsql
as $$
declare
    _ids bigint[];
begin
    with locked as (
        select e.event_id
        from tocsin.event e
        where e.event_id = any (_event_ids)
            and e.cancelled_at is null
        -- in one order, so that two calls can't deadlock
        order by e.event_id
        for update
    ),
    cancelled as (
        update tocsin.event e
        -- the recipients of a scheduled event stay, so that it is found when one of them is erased
        set cancelled_at = clock_timestamp(), withdrawn = _withdrawn
        from locked l
        where e.event_id = l.event_id
        returning e.event_id
    )
    select count(*), coalesce(array_agg(c.event_id), '{}')
    into events, _ids
    from cancelled c;
    stopped := case when events > 0 then tocsin.stop_cancelled(_ids) else 0 end;
end
$$;

-- Why deliveries of a cancelled event are not sent; null if it is not cancelled.
create or replace function tocsin.cancel_reason(_event tocsin.event) returns text
language sql immutable
as $$
    select case when _event.cancelled_at is not null then case when _event.withdrawn then 'withdrawn' else 'cancelled' end end
$$;

-- Why a notification left its inbox: cancelled, withdrawn or replaced; null if it did not.
create or replace function tocsin.left_inbox(_event tocsin.event, _replaced_by bigint) returns text
language sql immutable
as $$
    select coalesce(tocsin.cancel_reason(_event), case when _replaced_by is not null then 'replaced' end)
$$;

-- Stops the deliveries of cancelled events, and removes the events from inboxes and badges. Returns how many deliveries.
create or replace function tocsin.stop_cancelled(_ids bigint[]) returns integer
language plpgsql
as $$
declare
    _now timestamptz := clock_timestamp();
    _stopped integer;
    _moved text[];
begin
    -- A delivery that is being claimed is skipped; the check right before sending stops it. Waiting for it would keep the
    -- rows locked until the app commits, and its outcome could not be written.
    with stopped as (
        -- states: queued | deferred -> cancelled
        update tocsin.delivery d
        set state = 'cancelled', reason = waiting.reason, due_at = null, settled_at = _now
        from (
            select w.delivery_id, tocsin.cancel_reason(e) as reason
            from tocsin.delivery w
            join tocsin.event e using (event_id)
            where w.event_id = any (_ids)
                and w.state in ('queued', 'deferred')
                and not tocsin.is_for_app(w)
            for update of w skip locked
        ) waiting
        where d.delivery_id = waiting.delivery_id
        returning d.delivery_id
    ),
    ended as (
        insert into tocsin.settled_batch (settled_at, delivery_ids)
        select _now, array_agg(s.delivery_id)
        from stopped s
        having count(*) > 0
    )
    select count(*)
    into _stopped
    from stopped;
    with withdrawn as (
        update tocsin.notification n
        set in_inbox = false
        where n.event_id = any (_ids)
            -- also one that is being claimed by its recipient just now
            and (n.in_inbox or n.recipient_id is null)
        returning n.notification_id, n.recipient_id, n.read_at, n.archived_at
    ),
    unread as (
        insert into tocsin.unread_delta (recipient_id, n)
        select w.recipient_id, -1
        from withdrawn w
        where w.read_at is null
            and w.archived_at is null
            and w.recipient_id is not null
    ),
    changed as (
        insert into tocsin.inbox_change (recipient_id, change, notification_ids)
        select w.recipient_id, 'archived', array[w.notification_id]
        from withdrawn w
        where w.archived_at is null
            and w.recipient_id is not null
        returning recipient_id
    )
    select array_agg(c.recipient_id)
    into _moved
    from changed c;
    perform tocsin.wake(_moved);
    return _stopped;
end
$$;
