-- Pages of a person's inbox or archive.

-- Whether a notification has the properties that a list asks for; null is all. The planner replaces the call by its expression.
create or replace function tocsin.has_properties(
    _notification tocsin.notification,
    _read boolean,
    _event_type text,
    _category text,
    _subject text
) returns boolean
language sql immutable
as $$
    select (_read is null or (_notification.read_at is not null) = _read)
        and (_event_type is null or _notification.event_type = _event_type)
        and (_category is null or split_part(_notification.event_type, '.', 1) = _category)
        and (_subject is null or _notification.subject = _subject)
$$;

-- Those with these properties that are older than a position, or newer, nearest first. Each branch reads along an index as far as
-- the page needs: in the archive along notification_archived, with a subject along notification_subject; else, for each
-- type that the filter names, along notification_unread and notification_read, which is short however rare the type is.
create or replace function tocsin.inbox_page(
    _recipient_id text,
    _read boolean,
    _event_type text,
    _category text,
    _subject text,
    _archived boolean,
    _newer boolean,
    _at timestamptz,
    _id bigint,
    _limit integer
) returns table (
    notification_id bigint,
    event_id bigint,
    event_type text,
    subject text,
    read_at timestamptz,
    created_at timestamptz
)
language plpgsql stable rows 20
as $$
#variable_conflict use_column
begin
    if not _newer then
        _at := coalesce(_at, 'infinity');
        _id := coalesce(_id, 9223372036854775807);
    end if;
    if _archived and _newer then
        return query
            select n.notification_id, n.event_id, n.event_type, n.subject, n.read_at, n.created_at
            from tocsin.notification n
            where n.recipient_id = _recipient_id
                and n.in_inbox
                and n.archived_at is not null
                and tocsin.has_properties(n, _read, _event_type, _category, _subject)
                and (n.created_at, n.notification_id) > (_at, _id)
            order by n.created_at, n.notification_id
            limit _limit;
    elsif _archived then
        return query
            select n.notification_id, n.event_id, n.event_type, n.subject, n.read_at, n.created_at
            from tocsin.notification n
            where n.recipient_id = _recipient_id
                and n.in_inbox
                and n.archived_at is not null
                and tocsin.has_properties(n, _read, _event_type, _category, _subject)
                and (n.created_at, n.notification_id) < (_at, _id)
            order by n.created_at desc, n.notification_id desc
            limit _limit;
    elsif _subject is not null and _newer then
        return query
            select n.notification_id, n.event_id, n.event_type, n.subject, n.read_at, n.created_at
            from tocsin.notification n
            where n.recipient_id = _recipient_id
                and n.subject = _subject
                and n.in_inbox
                and n.archived_at is null
                and tocsin.has_properties(n, _read, _event_type, _category, null)
                and (n.created_at, n.notification_id) > (_at, _id)
            order by n.created_at, n.notification_id
            limit _limit;
    elsif _subject is not null then
        return query
            select n.notification_id, n.event_id, n.event_type, n.subject, n.read_at, n.created_at
            from tocsin.notification n
            where n.recipient_id = _recipient_id
                and n.subject = _subject
                and n.in_inbox
                and n.archived_at is null
                and tocsin.has_properties(n, _read, _event_type, _category, null)
                and (n.created_at, n.notification_id) < (_at, _id)
            order by n.created_at desc, n.notification_id desc
            limit _limit;
    elsif _newer and coalesce(_read::text, _event_type, _category) is null then
        return query
            select n.notification_id, n.event_id, n.event_type, n.subject, n.read_at, n.created_at
            from tocsin.notification n
            where n.recipient_id = _recipient_id
                and n.in_inbox
                and n.archived_at is null
                and (n.created_at, n.notification_id) > (_at, _id)
            order by n.created_at, n.notification_id
            limit _limit;
    elsif _newer then
        return query
            select r.notification_id, r.event_id, r.event_type, r.subject, r.read_at, r.created_at
            from tocsin.event_type t
            cross join lateral (
                (
                    select n.notification_id, n.event_id, n.event_type, n.subject, n.read_at, n.created_at
                    from tocsin.notification n
                    where n.recipient_id = _recipient_id
                        and n.in_inbox
                        and n.archived_at is null
                        and n.event_type = t.event_type
                        and n.read_at is null
                        and _read is distinct from true
                        and (n.created_at, n.notification_id) > (_at, _id)
                    order by n.created_at, n.notification_id
                    limit _limit
                )
                union all
                (
                    select n.notification_id, n.event_id, n.event_type, n.subject, n.read_at, n.created_at
                    from tocsin.notification n
                    where n.recipient_id = _recipient_id
                        and n.in_inbox
                        and n.archived_at is null
                        and n.event_type = t.event_type
                        and n.read_at is not null
                        and _read is distinct from false
                        and (n.created_at, n.notification_id) > (_at, _id)
                    order by n.created_at, n.notification_id
                    limit _limit
                )
            ) r
            where (_event_type is null or t.event_type = _event_type)
                and (_category is null or t.category = _category)
            order by r.created_at, r.notification_id
            limit _limit;
    else
        return query
            select r.notification_id, r.event_id, r.event_type, r.subject, r.read_at, r.created_at
            from tocsin.event_type t
            cross join lateral (
                (
                    select n.notification_id, n.event_id, n.event_type, n.subject, n.read_at, n.created_at
                    from tocsin.notification n
                    where n.recipient_id = _recipient_id
                        and n.in_inbox
                        and n.archived_at is null
                        and n.event_type = t.event_type
                        and n.read_at is null
                        and _read is distinct from true
                        and (n.created_at, n.notification_id) < (_at, _id)
                    order by n.created_at desc, n.notification_id desc
                    limit _limit
                )
                union all
                (
                    select n.notification_id, n.event_id, n.event_type, n.subject, n.read_at, n.created_at
                    from tocsin.notification n
                    where n.recipient_id = _recipient_id
                        and n.in_inbox
                        and n.archived_at is null
                        and n.event_type = t.event_type
                        and n.read_at is not null
                        and _read is distinct from false
                        and (n.created_at, n.notification_id) < (_at, _id)
                    order by n.created_at desc, n.notification_id desc
                    limit _limit
                )
            ) r
            where (_event_type is null or t.event_type = _event_type)
                and (_category is null or t.category = _category)
            order by r.created_at desc, r.notification_id desc
            limit _limit;
    end if;
end
$$;
