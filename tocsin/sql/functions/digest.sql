-- Digests: what waits for one, when the next one is due, and how it becomes a delivery.

-- When the first digest after a time is due; null where there is none. Local time is that of the zone's clock on that day: a
-- time that the clock skips is as much later as the clock was moved, and a time that comes twice is used once.
create or replace function tocsin.next_digest_at(_preference tocsin.digest_preference, _after timestamptz)
returns timestamptz
language plpgsql stable
as $$
declare
    _zone text := coalesce(_preference.timezone, 'UTC');
    _day date := (_after at time zone _zone)::date;
    _at timestamptz;
begin
    if _preference.frequency = 'off' or _preference.categories = '{}' then
        return null;
    end if;
    if _preference.frequency = 'weekly' then
        _day := _day + (7 + _preference.weekday - extract(isodow from _day)::integer) % 7;
    end if;
    loop
        _at := (_day + _preference.send_at) at time zone _zone;
        exit when _at > _after;
        _day := _day + case _preference.frequency when 'weekly' then 7 else 1 end;
    end loop;
    return _at;
end
$$;

-- Changes what is not null; categories {*} mean all, also later ones. When digests are turned off, or no category is left,
-- one more digest is sent if something waits.
create or replace function tocsin.set_digest_preference(
    _recipient_id text,
    _frequency text,
    _categories text[],
    _send_at time,
    _timezone text,
    _weekday smallint
) returns void
language plpgsql
as $$
declare
    _before tocsin.digest_preference;
    _preference tocsin.digest_preference;
    _zone text;
    _last timestamp;
    _after timestamptz := clock_timestamp();
begin
    insert into tocsin.recipient (recipient_id)
    values (_recipient_id)
    on conflict do nothing;
    insert into tocsin.digest_preference (recipient_id, frequency)
    values (_recipient_id, 'off')
    on conflict do nothing;
    select p.* into _before
    from tocsin.digest_preference p
    where p.recipient_id = _recipient_id
    for update;
    update tocsin.digest_preference p
    set frequency = coalesce(_frequency, p.frequency),
        categories = case when _categories = '{*}' then null else coalesce(_categories, p.categories) end,
        send_at = coalesce(_send_at, p.send_at),
        timezone = coalesce(_timezone, p.timezone),
        weekday = coalesce(_weekday, p.weekday),
        unsubscribed = p.unsubscribed and coalesce(_frequency, p.frequency) = 'off',
        updated_at = clock_timestamp()
    where p.recipient_id = _recipient_id
    returning p.* into _preference;
    -- one that is due and not made yet is still to come
    if _before.next_at <= _after and not _before.unsubscribed then
        return;
    end if;
    -- one a day, or one an ISO week: a new hour or weekday applies from the next day or week on where this one's was made
    _zone := coalesce(_preference.timezone, 'UTC');
    select date_trunc(case _preference.frequency when 'weekly' then 'week' else 'day' end, g.due_at at time zone _zone)
    into _last
    from tocsin.digest g
    where g.recipient_id = _recipient_id
        -- the last one before digests were turned off counts too
        and g.frequency in (_preference.frequency, 'off')
    order by g.due_at desc
    limit 1;
    if found then
        _after := greatest(
            _after,
            (_last + case _preference.frequency when 'weekly' then interval '7 days' else interval '1 day' end)
                at time zone _zone - interval '1 microsecond'
        );
    end if;
    update tocsin.digest_preference p
    set next_at = coalesce(
        tocsin.next_digest_at(_preference, _after),
        case
            when exists (
                select
                from tocsin.digest_item i
                where i.recipient_id = _recipient_id
                    and i.digest_id is null
            ) then p.next_at
        end
    )
    where p.recipient_id = _recipient_id;
end
$$;

-- For unsubscribe links: no digest any more, not even a last one. Returns whether that changed something.
create or replace function tocsin.turn_digest_off(_recipient_id text) returns boolean
language sql
as $$
    with changed as (
        update tocsin.digest_preference p
        set frequency = 'off', unsubscribed = true, updated_at = clock_timestamp()
        where p.recipient_id = _recipient_id
            and p.frequency <> 'off'
        returning 1
    )
    select exists (select from changed)
$$;

-- The content of a digest: its notifications, except for cancelled events, and for those whose email the person turned off
-- since, or whose topic they muted or left.
create or replace view tocsin.digest_entry as
select
    i.digest_id,
    i.recipient_id,
    n.notification_id,
    n.event_id,
    n.event_type,
    n.created_at,
    n.read_at is not null or n.archived_at is not null as read,
    case when e.content is null then e.title else tocsin.text_for(e.content, r.locale, 'email', 'title', e.title) end as title,
    case when e.content is null then e.body else tocsin.text_for(e.content, r.locale, 'email', 'body', e.body) end as body,
    case when e.content is null then e.body_html else tocsin.text_for(e.content, r.locale, 'email', 'body_html', e.body_html) end as body_html,
    e.action_url,
    e.metadata,
    e.initiator,
    t.label,
    c.category,
    c.label as category_label,
    c.position as category_position,
    e.actions,
    case when t.grouped then n.subject end as subject,
    e.metadata ->> 'about' as about,
    case
        when t.grouped and n.subject is not null
            then (select p.name from tocsin.recipient p where p.recipient_id = e.initiator)
    end as initiator_name,
    case when t.grouped and n.subject is not null then t.title_many end as title_many
from tocsin.digest_item i
join tocsin.notification n using (notification_id)
join tocsin.event e using (event_id)
join tocsin.event_type t on t.event_type = n.event_type
join tocsin.category c using (category)
left join tocsin.recipient r on r.recipient_id = case when e.content is not null then i.recipient_id end
where e.cancelled_at is null
    and n.replaced_by is null
    and not exists (
        select
        from (
            select p.enabled
            from tocsin.preference p
            where p.recipient_id = i.recipient_id
                and p.channel = 'email'
                and p.scope in (t.event_type, t.category || '.*', '*')
            order by p.scope = t.event_type desc, p.scope <> '*' desc
            limit 1
        ) p
        where not p.enabled
    )
    and (
        e.topic is null
        or exists (
            select
            from (
                select s.level
                from tocsin.subscription s
                where s.topic = e.topic
                    and s.recipient_id = i.recipient_id
                order by s.event_id
                limit 1
            ) s
            where s.level = 'all'
                or s.level = 'mentions' and n.because = 'mentioned'
        )
    );

-- Why a notification of a digest was not in its mail, which was checked at a time: what was so by then and still is. Null: it
-- was in the mail.
create or replace function tocsin.left_out_of_digest(_notification tocsin.notification, _event tocsin.event, _checked_at timestamptz)
returns text
language sql stable
as $$
    select case
        when _event.cancelled_at <= _checked_at then tocsin.left_inbox(_event, null)
        when (
            select p.updated_at <= _checked_at and not p.enabled
            from tocsin.preference p
            where p.recipient_id = _notification.recipient_id
                and p.channel = 'email'
                and p.scope in (_notification.event_type, split_part(_notification.event_type, '.', 1) || '.*', '*')
            order by p.scope = _notification.event_type desc, p.scope <> '*' desc
            limit 1
        ) then 'opted_out_since'
        when exists (
            select
            from tocsin.subscription s
            where s.topic = _event.topic
                and s.recipient_id = _notification.recipient_id
                and s.event_id = 0
                and s.level = 'muted'
                and s.updated_at <= _checked_at
        ) then 'muted'
    end
$$;

-- The notifications in a digest at this moment; the check right before sending compares them with what was rendered.
create or replace function tocsin.digest_contents(_digest_id bigint) returns bigint[]
language sql stable
as $$
    select coalesce(array_agg(e.notification_id order by e.notification_id), '{}')
    from tocsin.digest_entry e
    where e.digest_id = _digest_id
$$;

-- One batch of people whose digest is due: assigns what waits to a new digest, queues its delivery, and sets when the next
-- one is due. A digest with nothing unread is settled at once. Several processes may run it at once. It goes person by
-- person, so that each statement has one cheap plan, however much waits.
create or replace function tocsin.assemble_digests(_now timestamptz, _limit integer)
returns table (people integer, digests integer, unsent integer)
language plpgsql
as $$
declare
    _due tocsin.digest_preference;
    _digest_id bigint;
    _unsent text;
begin
    people := 0;
    digests := 0;
    unsent := 0;
    for _due in
        select p.*
        from tocsin.digest_preference p
        where p.next_at <= _now
        order by p.next_at
        limit _limit
        for update skip locked
    loop
        people := people + 1;
        update tocsin.digest_preference p
        set next_at = tocsin.next_digest_at(_due, _now)
        where p.recipient_id = _due.recipient_id;

        -- where this period's digest was made already, what waits now is for the next one
        insert into tocsin.digest (recipient_id, frequency, due_at)
        select _due.recipient_id, _due.frequency, _due.next_at
        where exists (
            select
            from tocsin.digest_item i
            where i.recipient_id = _due.recipient_id
                and i.digest_id is null
        )
        on conflict do nothing
        returning digest_id into _digest_id;
        continue when not found;

        update tocsin.digest_item i
        set digest_id = _digest_id
        where i.recipient_id = _due.recipient_id
            and i.digest_id is null;
        select
            case
                when _due.unsubscribed then 'opted_out_since'
                when not coalesce(bool_or(e.cancelled_at is null), false) then 'cancelled'
                when not bool_or(e.cancelled_at is null and n.read_at is null and n.archived_at is null) then 'already_read'
            end
        into _unsent
        from tocsin.digest_item i
        join tocsin.notification n using (notification_id)
        join tocsin.event e using (event_id)
        where i.digest_id = _digest_id;
        with made as (
            -- states: new -> queued | skipped
            insert into tocsin.delivery (
                recipient_id, channel, digest_id, state, reason, due_at, created_at, expires_at, settled_at
            )
            select
                _due.recipient_id,
                'email',
                _digest_id,
                case when _unsent is null then 'queued' else 'skipped' end::tocsin.delivery_state,
                _unsent,
                case when _unsent is null then n.at end,
                n.at,
                n.at + interval '1 day',
                case when _unsent is not null then n.at end
            from (select clock_timestamp() as at) n
            returning delivery_id, settled_at
        )
        insert into tocsin.settled_batch (settled_at, delivery_ids)
        select m.settled_at, array[m.delivery_id]
        from made m
        where m.settled_at is not null;
        digests := digests + case when _unsent is null then 1 else 0 end;
        unsent := unsent + case when _unsent is null then 0 else 1 end;
    end loop;
    perform tocsin.wake();
    return next;
end
$$;

-- What waits for a person without a next digest (turned off, no category left, committed late) is due now, so that nothing
-- waits for ever. Returns for how many people.
create or replace function tocsin.schedule_leftover_digests(_now timestamptz) returns integer
language sql
as $$
    with left_over as (
        select distinct i.recipient_id
        from tocsin.digest_item i
        join tocsin.recipient r using (recipient_id)
        where i.digest_id is null
            and not exists (
                select
                from tocsin.digest_preference p
                where p.recipient_id = i.recipient_id
                    and p.next_at is not null
            )
    ),
    called as (
        insert into tocsin.digest_preference as p (recipient_id, frequency, next_at)
        select l.recipient_id, 'off', _now
        from left_over l
        order by l.recipient_id
        on conflict (recipient_id) do update
        set next_at = excluded.next_at
        where p.next_at is null
        returning 1
    )
    select count(*)::integer
    from called
$$;
