-- A duration such as 10m, 12h or 3d, in hours: a day of an interval has 23 or 25 hours when the clock is changed in the time
-- zone of the session that adds it, and an app's session may have any zone.
create or replace function tocsin.duration(_text text) returns interval
language sql immutable
as $$
    select make_interval(secs => extract(epoch from replace(_text, 'm', 'min')::interval)::float8)
$$;

-- A throttle as a catalogue file has it, such as 10/1h.
create or replace function tocsin.throttle_text(_most integer, _within interval) returns text
language sql immutable
as $$
    select _most || '/' || (
        select s / u.seconds || u.unit
        from (values (86400, 'd'), (3600, 'h'), (60, 'm'), (1, 's')) u (seconds, unit)
        where s % u.seconds = 0
        order by u.seconds desc
        limit 1
    )
    from (select extract(epoch from _within)::integer as s) e
$$;

-- Applies a catalogue of event types, all or nothing:
-- {"categories": [{category, label}], "event_types": [{event_type, label, channels, mandatory, priority, …}],
-- "replace": boolean}; lists, since the order of an object's keys is lost.
-- Returns how many event types there are now.
create or replace function tocsin.apply_catalogue(_catalogue jsonb) returns integer
language plpgsql
as $$
declare
    _stray text;
begin
    select c into _stray
    from jsonb_array_elements(_catalogue -> 'event_types') t (entry),
        jsonb_array_elements_text(
            (t.entry -> 'channels') || (t.entry -> 'mandatory') || (t.entry -> 'skip_if_read')
            || to_jsonb(array(select jsonb_object_keys(t.entry -> 'delay')))
        ) c
    where not exists (select from tocsin.channel k where k.channel = c)
    limit 1;
    if found then
        perform tocsin.raise_invalid('channels', format('unknown channel %s', quote_literal(_stray)),
            'The channels: ' || (select string_agg(k.channel, ', ' order by k.position) from tocsin.channel k));
    end if;

    select d.channel into _stray
    from jsonb_array_elements(_catalogue -> 'event_types') t (entry)
    cross join jsonb_object_keys(t.entry -> 'delay') d (channel)
    join tocsin.channel k on k.channel = d.channel
    where k.further
    limit 1;
    if found then
        perform tocsin.raise_invalid('delay', format('delay has %s, which has no delay of its own', quote_literal(_stray)),
            'A browser waits as push does; a webhook and a chat never wait.');
    end if;

    perform tocsin.checked_label(n.entry ->> 'label')
    from jsonb_array_elements((_catalogue -> 'categories') || (_catalogue -> 'event_types')) n (entry);

    insert into tocsin.category as c (category, label, position)
    select
        n.category,
        coalesce(max(n.label), initcap(n.category)),
        coalesce((select max(x.position) from tocsin.category x), 0) + min(n.position)
    from (
        select k.entry ->> 'category' as category, k.entry ->> 'label' as label, k.position
        from jsonb_array_elements(_catalogue -> 'categories') with ordinality k (entry, position)
        union all
        select split_part(t.entry ->> 'event_type', '.', 1), null, 1000 + t.position
        from jsonb_array_elements(_catalogue -> 'event_types') with ordinality t (entry, position)
    ) n
    group by n.category
    on conflict (category) do update
    set label = coalesce(
        (
            select k ->> 'label'
            from jsonb_array_elements(_catalogue -> 'categories') k
            where k ->> 'category' = c.category
        ),
        c.label
    );

    insert into tocsin.event_type as t (
        event_type, category, label, position, default_channels, mandatory_channels, priority, time_to_live,
        max_attempts, allows_digest, delays, skip_if_read, alone, mention, grouped, title_many,
        throttle_most, throttle_within, unread_retention
    )
    select
        e.entry ->> 'event_type',
        split_part(e.entry ->> 'event_type', '.', 1),
        e.entry ->> 'label',
        coalesce((select max(x.position) from tocsin.event_type x), 0) + e.position,
        array(select jsonb_array_elements_text(e.entry -> 'channels')),
        array(select jsonb_array_elements_text(e.entry -> 'mandatory')),
        array_position(array['low', 'normal', 'high'], e.entry ->> 'priority') - 1,
        tocsin.duration(e.entry ->> 'time_to_live'),
        (e.entry ->> 'max_attempts')::smallint,
        (e.entry ->> 'digest')::boolean,
        coalesce(
            (
                select jsonb_object_agg(d.channel, tocsin.duration(d.delay)::text)
                from jsonb_each_text(e.entry -> 'delay') d (channel, delay)
            ),
            '{}'
        ),
        -- what waits to be read first is not sent after it was read
        array(
            select jsonb_array_elements_text(e.entry -> 'skip_if_read')
            union
            select jsonb_object_keys(e.entry -> 'delay')
        ),
        (e.entry ->> 'alone')::boolean,
        coalesce((e.entry ->> 'mention')::boolean, false),
        coalesce((e.entry ->> 'group')::boolean, true),
        nullif(nullif(e.entry -> 'title_many', '{}'), 'null'),
        split_part(e.entry ->> 'throttle', '/', 1)::integer,
        tocsin.duration(split_part(e.entry ->> 'throttle', '/', 2)),
        tocsin.duration(e.entry ->> 'unread_retention')
    from jsonb_array_elements(_catalogue -> 'event_types') with ordinality e (entry, position)
    on conflict (event_type) do update
    set label = excluded.label,
        default_channels = excluded.default_channels,
        mandatory_channels = excluded.mandatory_channels,
        priority = excluded.priority,
        time_to_live = excluded.time_to_live,
        max_attempts = excluded.max_attempts,
        allows_digest = excluded.allows_digest,
        delays = excluded.delays,
        skip_if_read = excluded.skip_if_read,
        alone = excluded.alone,
        mention = excluded.mention,
        grouped = excluded.grouped,
        title_many = excluded.title_many,
        throttle_most = excluded.throttle_most,
        throttle_within = excluded.throttle_within,
        unread_retention = excluded.unread_retention,
        retired_at = null;

    if (_catalogue -> 'replace')::boolean then
        update tocsin.event_type t
        set retired_at = now()
        where t.retired_at is null
            and not exists (
                select
                from jsonb_array_elements(_catalogue -> 'event_types') e
                where e ->> 'event_type' = t.event_type
            );
    end if;
    return (select count(*) from tocsin.event_type t where t.retired_at is null);
end
$$;
