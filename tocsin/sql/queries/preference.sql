-- name: get_preferences
-- What is on for a person, by the rules of tocsin.decide, and where each answer comes from.
with choice as (
    select
        t.event_type,
        t.position as type_position,
        c.channel,
        c.channel = any (t.mandatory_channels) as mandatory,
        c.channel = any (t.default_channels) as standard,
        p.enabled,
        p.scope
    from tocsin.event_type t
    cross join tocsin.channel c
    left join lateral (
        select
            p.enabled,
            p.scope
        from tocsin.preference p
        where p.recipient_id = :recipient_id
            and p.channel = c.channel
            and p.scope in (t.event_type, t.category || '.*', '*')
        order by p.scope = t.event_type desc, p.scope <> '*' desc
        limit 1
    ) p on true
    where t.retired_at is null
),
by_type as (
    select
        c.event_type,
        jsonb_object_agg(c.channel, c.mandatory or coalesce(c.enabled, c.standard)) as channels,
        jsonb_object_agg(
            c.channel,
            case
                when c.mandatory then 'mandatory'
                when c.scope is null then 'default'
                when c.scope = c.event_type then 'type'
                else c.scope
            end
        ) as sources,
        jsonb_agg(c.channel) filter (where c.mandatory) as mandatory
    from choice c
    group by c.event_type
),
by_scope as (
    select
        p.scope,
        jsonb_object_agg(p.channel, p.enabled) as channels
    from tocsin.preference p
    where p.recipient_id = :recipient_id
    group by p.scope
)
select
    coalesce((select jsonb_object_agg(b.event_type, b.channels) from by_type b), '{}') as event_types,
    coalesce((select jsonb_object_agg(b.event_type, b.sources) from by_type b), '{}') as sources,
    coalesce((select jsonb_object_agg(s.scope, s.channels) from by_scope s), '{}') as overrides,
    coalesce(
        (select jsonb_object_agg(b.event_type, b.mandatory) from by_type b where b.mandatory is not null),
        '{}'
    ) as mandatory;

-- name: preference_keys
-- What an override may name: each scope, and each channel.
select
    array(
        select '*'
        union all
        select c.category || '.*'
        from tocsin.category c
        union all
        select t.event_type
        from tocsin.event_type t
    ) as scopes,
    array(
        select c.channel
        from tocsin.channel c
        order by c.position
    ) as channels,
    coalesce(
        (
            select jsonb_object_agg(t.event_type, t.mandatory_channels)
            from tocsin.event_type t
            where t.mandatory_channels <> '{}'
        ),
        '{}'
    ) as mandatory;

-- name: set_overrides!
-- Merges overrides {scope: {channel: true, false or null}}; null inherits again. Creates the person where it is a first write.
with person as (
    insert into tocsin.recipient (recipient_id)
    values (:recipient_id)
    on conflict do nothing
),
change as (
    select
        s.scope,
        c.channel,
        c.enabled
    from jsonb_each(:overrides) s (scope, channels)
    cross join jsonb_each_text(s.channels) c (channel, enabled)
),
inherited as (
    delete from tocsin.preference p
    using change c
    where p.recipient_id = :recipient_id
        and p.scope = c.scope
        and p.channel = c.channel
        and c.enabled is null
)
insert into tocsin.preference as p (recipient_id, scope, channel, enabled)
select
    :recipient_id,
    c.scope,
    c.channel,
    c.enabled::boolean
from change c
where c.enabled is not null
-- one order for all, so that two devices can't deadlock
order by c.scope, c.channel
on conflict (recipient_id, scope, channel) do update
set enabled = excluded.enabled, updated_at = now()
where p.enabled <> excluded.enabled;
