-- Groups of the inbox: notifications of one event type and subject as one item (docs/adr/0066-groups.md).
--
-- They are made when an inbox is read, and are not stored. All unread notifications of a type and subject are a group,
-- and so are the read ones that were made on the same day of the person's zone. A notification is a group of one if it has
-- no subject, if its type has `group = false`, or if the person turned groups off.

-- The members of a group, as a list with this snapshot can show them; null for _as_of: all. With the day null, the unread
-- ones; else the read ones of that day. A day is a comparison of dates, since a clock may show its midnight twice; the range
-- of times around it is for the index. `is not false` keeps the planner from notification_inbox, which has the same order but
-- would be read past all other subjects.
create or replace function tocsin.group_members(
    _recipient_id text,
    _event_type text,
    _subject text,
    _day date,
    _zone text,
    _as_of pg_snapshot
) returns setof tocsin.notification
language sql stable
as $$
    select n.*
    from tocsin.notification n
    where n.recipient_id = _recipient_id
        and n.subject = _subject
        and n.event_type = _event_type
        and n.in_inbox is not false
        and n.archived_at is null
        and (n.read_at is null) = (_day is null)
        and n.created_at >= coalesce((_day - 1)::timestamp at time zone 'UTC', '-infinity')
        and n.created_at < coalesce((_day + 2)::timestamp at time zone 'UTC', 'infinity')
        and (_day is null or (n.created_at at time zone _zone)::date = _day)
        and coalesce(pg_visible_in_snapshot(n.xid, _as_of), true)
$$;

create or replace function tocsin.zone_of(_recipient_id text) returns text
language sql stable
as $$
    select coalesce((select r.timezone from tocsin.recipient r where r.recipient_id = _recipient_id), 'UTC')
$$;

-- The ids of a person's notifications outside of an unread group; null if there are more than _most. Each range is read in the
-- order of the index that has nothing else, so the group itself is not read.
create or replace function tocsin.outside_of_group(_recipient_id text, _event_type text, _subject text, _most integer)
returns bigint[]
language plpgsql stable
as $$
#variable_conflict use_column
declare
    _ids bigint[];
begin
    _ids := array(
        select o.notification_id
        from (
            (
                select n.notification_id
                from tocsin.notification n
                where n.recipient_id = _recipient_id
                    and n.subject < _subject
                    and n.archived_at is null
                order by n.subject, n.created_at desc, n.notification_id desc
                limit _most + 1
            )
            union all
            (
                select n.notification_id
                from tocsin.notification n
                where n.recipient_id = _recipient_id
                    and n.subject > _subject
                    and n.archived_at is null
                order by n.subject, n.created_at desc, n.notification_id desc
                limit _most + 1
            )
            union all
            (
                select n.notification_id
                from tocsin.notification n
                where n.recipient_id = _recipient_id
                    and n.subject is null
                    and n.archived_at is null
                order by n.subject, n.created_at desc, n.notification_id desc
                limit _most + 1
            )
            union all
            (
                select n.notification_id
                from tocsin.notification n
                where n.recipient_id = _recipient_id
                    and n.event_type < _event_type
                    and n.in_inbox
                    and n.archived_at is null
                    and n.read_at is null
                order by n.event_type, n.created_at desc, n.notification_id desc
                limit _most + 1
            )
            union all
            (
                select n.notification_id
                from tocsin.notification n
                where n.recipient_id = _recipient_id
                    and n.event_type > _event_type
                    and n.in_inbox
                    and n.archived_at is null
                    and n.read_at is null
                order by n.event_type, n.created_at desc, n.notification_id desc
                limit _most + 1
            )
            union all
            (
                select n.notification_id
                from tocsin.notification n
                where n.recipient_id = _recipient_id
                    and n.in_inbox
                    and n.archived_at is null
                    and n.read_at is not null
                order by n.event_type, n.created_at desc, n.notification_id desc
                limit _most + 1
            )
        ) o
        limit _most + 1
    );
    return case when cardinality(_ids) <= _most then _ids end;
end
$$;

-- The group of a notification: whether it is one of its own; the day of one that is read; its key.
create or replace function tocsin.group_of(
    _notification tocsin.notification,
    _zone text,
    _grouped boolean,
    _single_types text[]
) returns table (single boolean, day date, key text)
language sql stable
as $$
    select
        o.single,
        o.day,
        case
            when o.single then _notification.notification_id::text
            else _notification.event_type || '~' || _notification.subject || coalesce('~' || o.day, '')
        end
    from (
        select
            s.single,
            case
                when not s.single and _notification.read_at is not null
                then (_notification.created_at at time zone _zone)::date
            end as day
        from (
            select
                not _grouped
                or _notification.subject is null
                or _notification.event_type = any (_single_types) as single
        ) s
    ) o
$$;

-- Whether a group has a member that is newer than a position, or is at it.
create or replace function tocsin.has_newer_member(
    _recipient_id text,
    _event_type text,
    _subject text,
    _day date,
    _zone text,
    _as_of pg_snapshot,
    _at timestamptz,
    _id bigint
) returns boolean
language plpgsql stable
as $$
begin
    return exists (
        select
        from tocsin.group_members(_recipient_id, _event_type, _subject, _day, _zone, _as_of) m
        where (m.created_at, m.notification_id) >= (_at, _id)
    );
end
$$;

-- The newest notification of each group among these, but for known groups: the first _limit that are older than _last_at and
-- _last_id. From a position on (_at, _id), a group is left out if it has a newer member.
create or replace function tocsin.group_heads_among(
    _ids bigint[],
    _known text[],
    _zone text,
    _grouped boolean,
    _single_types text[],
    _recipient_id text,
    _read boolean,
    _event_type text,
    _category text,
    _subject text,
    _as_of pg_snapshot,
    _last_at timestamptz,
    _last_id bigint,
    _at timestamptz,
    _id bigint,
    _limit integer
) returns table (notification_id bigint, day date, single boolean)
language plpgsql stable rows 20
as $$
#variable_conflict use_column
begin
    return query
        select g.notification_id, g.day, g.single
        from (
            select w.*
            from (
                select distinct on (k.key) n.notification_id, n.event_type, n.subject, n.created_at, k.day, k.single
                from unnest(_ids) o (notification_id)
                join tocsin.notification n using (notification_id)
                cross join lateral tocsin.group_of(n, _zone, _grouped, _single_types) k
                where n.in_inbox
                    and n.archived_at is null
                    and (n.created_at, n.notification_id) < (_last_at, _last_id)
                    and (_read is null or (n.read_at is not null) = _read)
                    and (_event_type is null or n.event_type = _event_type)
                    and (_category is null or split_part(n.event_type, '.', 1) = _category)
                    and (_subject is null or n.subject = _subject)
                    and coalesce(pg_visible_in_snapshot(n.xid, _as_of), true)
                    and k.key <> all (_known)
                order by k.key, n.created_at desc, n.notification_id desc
            ) w
            order by w.created_at desc, w.notification_id desc
            offset 0 -- so that newer members are looked for until the page is full
        ) g
        where _at is null
            or g.single
            or not tocsin.has_newer_member(_recipient_id, g.event_type, g.subject, g.day, _zone, _as_of, _at, _id)
        order by g.created_at desc, g.notification_id desc
        limit _limit;
end
$$;

-- The newest notification of each group: the first _limit from a position on (_at, _id; null: of all), or with _newer the
-- last _limit before it.
--
-- It reads along notification_inbox from the newest on, in steps of rows that belong to none of the groups that it has found.
-- So it visits each row once, at the cost of a comparison where the group is known. It leaves out the rest of an unread group
-- that half of the first step belongs to, or that it is in 300 rows later, if few rows are outside of that group. From a
-- position on, a group is left out if it has a newer member: it was on an earlier page. `day` is null for unread ones, and for
-- groups of one.
create or replace function tocsin.group_heads(
    _recipient_id text,
    _read boolean,
    _event_type text,
    _category text,
    _subject text,
    _as_of pg_snapshot,
    _at timestamptz,
    _id bigint,
    _newer boolean,
    _limit integer
) returns table (notification_id bigint, day date, single boolean)
language plpgsql stable rows 20
as $$
#variable_conflict use_column
declare
    _zone text;
    _grouped boolean;
    _single_types text[];
    _known text[] := '{}'; -- groups of earlier steps
    _known_subjects text[] := '{}';
    _new text[]; -- groups of this step
    _row record;
    _last_at timestamptz := case when _newer then 'infinity' else coalesce(_at, 'infinity') end;
    _last_id bigint := coalesce(_id, 9223372036854775807);
    _looked boolean := false;
    _deep record; -- the row 300 further down
    _until_at timestamptz := '-infinity'; -- its place; the end of the inbox without one
    _until_id bigint := 0;
    _outside bigint[]; -- all that is outside of a large group; null: all rows are walked
    _ids bigint[] := '{}';
    _days date[] := '{}';
    _singles boolean[] := '{}';
    _walked integer;
    _last_key text;
    _same integer := 0; -- rows of the first step in the group of its last row
    _step integer := case when _newer then 200 else _limit end; -- rows of one statement
begin
    if coalesce(_read::text, _event_type, _category, _subject) is not null then
        -- a filter may have a better index
        perform set_config(n.name, n.value, true)
        from (values ('plan_cache_mode', 'force_custom_plan'), ('enable_bitmapscan', 'on'), ('enable_sort', 'on')) n (name, value);
    end if;
    select
        coalesce((select r.timezone from tocsin.recipient r where r.recipient_id = _recipient_id), 'UTC'),
        coalesce((select p.grouped from tocsin.inbox_preference p where p.recipient_id = _recipient_id), true),
        array(select t.event_type from tocsin.event_type t where not t.grouped)
    into _zone, _grouped, _single_types;
    loop
        _walked := 0;
        _new := '{}';
        for _row in
            select
                n.notification_id,
                n.event_type,
                n.subject,
                n.created_at,
                k.single,
                k.day,
                k.key
            from tocsin.notification n
            cross join lateral tocsin.group_of(n, _zone, _grouped, _single_types) k
            where n.recipient_id = _recipient_id
                and n.in_inbox
                and n.archived_at is null
                and (n.created_at, n.notification_id) < (_last_at, _last_id)
                and (n.created_at, n.notification_id) >= (_until_at, _until_id)
                and (not _newer or (n.created_at, n.notification_id) > (_at, _id))
                and (_read is null or (n.read_at is not null) = _read)
                and (_event_type is null or n.event_type = _event_type)
                and (_category is null or split_part(n.event_type, '.', 1) = _category)
                and (_subject is null or n.subject = _subject)
                and coalesce(pg_visible_in_snapshot(n.xid, _as_of), true)
                -- the cheapest comparison first: this is what each member of a large group costs
                and case
                    when n.subject is null then true
                    when n.subject <> all (_known_subjects) then true
                    when n.read_at is null then n.event_type || '~' || n.subject <> all (_known)
                    else n.event_type || '~' || n.subject || '~' || (n.created_at at time zone _zone)::date <> all (_known)
                end
            order by n.created_at desc, n.notification_id desc
            limit _step
        loop
            _walked := _walked + 1;
            if not _row.single then
                _same := case when _row.key = _last_key then _same + 1 else 1 end;
                _last_key := _row.key;
                continue when _row.key = any (_new);
                _new := _new || _row.key;
                _known_subjects := _known_subjects || _row.subject;
                continue when _at is not null
                    and not _newer
                    and tocsin.has_newer_member(_recipient_id, _row.event_type, _row.subject, _row.day, _zone, _as_of, _at, _id);
            end if;
            _ids := _ids || _row.notification_id;
            _days := _days || _row.day;
            _singles := _singles || _row.single;
            exit when not _newer and cardinality(_ids) = _limit;
        end loop;
        exit when not _newer and cardinality(_ids) = _limit;
        if _walked > 0 then
            _last_at := _row.created_at;
            _last_id := _row.notification_id;
        end if;
        _known := _known || _new;
        if cardinality(_known) > 100 then
            -- only an array that is known when it is planned is searched by hashing
            perform set_config('plan_cache_mode', 'force_custom_plan', true);
        end if;
        if _walked = _step then
            -- each step is planned with all known groups
            _step := greatest(least(2 * _step, 500), _step);
            continue when _newer or _looked;
            _looked := true;
            if 2 * _same >= _walked and not _row.single and _row.day is null then
                _outside := tocsin.outside_of_group(_recipient_id, _row.event_type, _row.subject, 1000);
                exit when _outside is not null;
            end if;
            select n.created_at, n.notification_id, n.event_type, n.subject, n.read_at
            into _deep
            from tocsin.notification n
            where n.recipient_id = _recipient_id
                and n.in_inbox
                and n.archived_at is null
                and (n.created_at, n.notification_id) < (_last_at, _last_id)
            order by n.created_at desc, n.notification_id desc
            offset 300
            limit 1;
            _until_at := coalesce(_deep.created_at, '-infinity');
            _until_id := coalesce(_deep.notification_id, 0);
        else
            exit when _until_id = 0;
            _last_at := _until_at;
            _last_id := _until_id;
            _until_at := '-infinity';
            _until_id := 0;
            if _deep.read_at is null and _deep.event_type || '~' || _deep.subject = any (_known) then
                _outside := tocsin.outside_of_group(_recipient_id, _deep.event_type, _deep.subject, 1000);
                exit when _outside is not null;
            end if;
        end if;
    end loop;
    if _outside is not null then
        select _ids || array_agg(h.notification_id), _days || array_agg(h.day), _singles || array_agg(h.single)
        into _ids, _days, _singles
        from tocsin.group_heads_among(
            _outside, _known, _zone, _grouped, _single_types, _recipient_id, _read, _event_type, _category, _subject, _as_of,
            _last_at, _last_id, _at, _id, _limit - cardinality(_ids)
        ) h;
    end if;
    return query
        select u.notification_id, u.day, u.single
        from unnest(_ids, _days, _singles) with ordinality u (notification_id, day, single, place)
        where not _newer
            or u.place > cardinality(_ids) - _limit;
end
$$;

-- What a group's item shows of its members, of which the newest 1,000 are counted: how many, the time of the oldest, who caused
-- them (the three newest people, and how many there are). The newest people are mostly among those of the newest 10.
create or replace function tocsin.group_facts(
    _recipient_id text,
    _event_type text,
    _subject text,
    _day date,
    _zone text,
    _as_of pg_snapshot,
    out count integer,
    out capped boolean,
    out oldest_at timestamptz,
    out initiators jsonb,
    out people integer
)
language plpgsql stable
as $$
declare
    _event_ids bigint[];
    _newest integer;
begin
    select array_agg(m.event_id), min(m.created_at)
    into _event_ids, oldest_at
    from (
        select g.event_id, g.created_at
        from tocsin.group_members(_recipient_id, _event_type, _subject, _day, _zone, _as_of) g
        order by g.created_at desc, g.notification_id desc
        limit 1001
    ) m;
    capped := coalesce(cardinality(_event_ids) > 1000, false);
    _event_ids := _event_ids[:1000];
    count := coalesce(cardinality(_event_ids), 0);
    select count(*)
    into people
    from (
        select
        from tocsin.event e
        where e.event_id = any (_event_ids)
            and e.initiator is not null
        group by e.initiator
    ) p;
    foreach _newest in array array[10, 100, 1000] loop
        select coalesce(
            jsonb_agg(jsonb_build_object('id', p.initiator, 'name', r.name, 'avatar_url', r.avatar_url) order by p.place),
            '[]'
        )
        into initiators
        from (
            select e.initiator, min(u.place) as place
            from unnest(_event_ids[:_newest]) with ordinality u (event_id, place)
            join tocsin.event e using (event_id)
            where e.initiator is not null
            group by e.initiator
            order by min(u.place)
            limit 3
        ) p
        left join tocsin.recipient r on r.recipient_id = p.initiator;
        exit when jsonb_array_length(initiators) = least(people, 3);
    end loop;
    if capped then
        select m.created_at
        into oldest_at
        from tocsin.group_members(_recipient_id, _event_type, _subject, _day, _zone, _as_of) m
        order by m.created_at, m.notification_id
        limit 1;
    end if;
end
$$;

-- Removes the members of a group from list and badge; skips rows that another transaction is changing. Returns their
-- archived_at, by which it can be undone; null: there was nothing to remove.
create or replace function tocsin.archive_group(
    _recipient_id text,
    _event_type text,
    _subject text,
    _day date,
    _as_of pg_snapshot
) returns timestamptz
language plpgsql
as $$
declare
    _ids bigint[];
    _now timestamptz := clock_timestamp();
begin
    _ids := array(
        select n.notification_id
        from tocsin.notification n
        where n.notification_id = any (array(
                select m.notification_id
                from tocsin.group_members(_recipient_id, _event_type, _subject, _day, tocsin.zone_of(_recipient_id), _as_of) m
            ))
            and n.in_inbox
            and n.archived_at is null
            and (n.read_at is null) = (_day is null)
        order by n.notification_id
        for update skip locked
    );
    perform tocsin.set_archived_at(_recipient_id, _ids, _now);
    return case when cardinality(_ids) > 0 then _now end;
end
$$;
