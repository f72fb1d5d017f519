-- Applies a catalogue of event types, all or nothing:
-- {"categories": {name: label}, "event_types": {name: {label, channels, mandatory, priority, …}}, "replace": boolean}.
-- Answers how many event types it holds now.
create or replace function tocsin.apply_catalogue(_catalogue jsonb) returns integer
language plpgsql
as $$
declare
    _stray text;
begin
    select c into _stray
    from jsonb_each(_catalogue -> 'event_types') t,
        jsonb_array_elements_text(t.value -> 'channels' || t.value -> 'mandatory') c
    where not exists (select from tocsin.channel k where k.channel = c)
    limit 1;
    if found then
        perform tocsin.refuse('channels', format('unknown channel %s', quote_literal(_stray)),
            'The channels: ' || (select string_agg(k.channel, ', ' order by k.position) from tocsin.channel k));
    end if;

    insert into tocsin.category as c (category, label, position)
    select n.category, coalesce(_catalogue -> 'categories' ->> n.category, initcap(n.category)), n.position
    from (
        select m.category, (coalesce((select max(x.position) from tocsin.category x), 0) + min(m.position))::smallint as position
        from (
            select k.category, k.position
            from jsonb_object_keys(_catalogue -> 'categories') with ordinality k (category, position)
            union all
            select split_part(t.event_type, '.', 1), 1000 + t.position
            from jsonb_object_keys(_catalogue -> 'event_types') with ordinality t (event_type, position)
        ) m
        group by m.category
    ) n
    on conflict (category) do update
    set label = coalesce(_catalogue -> 'categories' ->> c.category, c.label);

    insert into tocsin.event_type as t (
        event_type, category, label, position, default_channels, mandatory_channels, priority, time_to_live,
        max_attempts, allows_digest
    )
    select
        e.event_type,
        split_part(e.event_type, '.', 1),
        e.entry ->> 'label',
        e.position,
        array(select jsonb_array_elements_text(e.entry -> 'channels')),
        array(select jsonb_array_elements_text(e.entry -> 'mandatory')),
        array_position(array['low', 'normal', 'high'], e.entry ->> 'priority') - 1,
        replace(e.entry ->> 'time_to_live', 'm', 'min')::interval,
        (e.entry ->> 'max_attempts')::smallint,
        (e.entry ->> 'digest')::boolean
    from jsonb_each(_catalogue -> 'event_types') with ordinality e (event_type, entry, position)
    on conflict (event_type) do update
    set label = excluded.label,
        default_channels = excluded.default_channels,
        mandatory_channels = excluded.mandatory_channels,
        priority = excluded.priority,
        time_to_live = excluded.time_to_live,
        max_attempts = excluded.max_attempts,
        allows_digest = excluded.allows_digest,
        retired_at = null;

    if (_catalogue -> 'replace')::boolean then
        update tocsin.event_type t
        set retired_at = now()
        where t.retired_at is null
            and not (_catalogue -> 'event_types') ? t.event_type;
    end if;
    return (select count(*) from tocsin.event_type t where t.retired_at is null);
end
$$;
