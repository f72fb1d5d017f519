-- Which channels reach a person for an event type, and why (not).
--
-- The situation holds only what differs from person to person: {"overrides": {channel: [enabled, scope]},
-- "no_address": true, "suppressed": true, "no_device": true}. People in one situation get one decision, so a fan-out decides a few times,
-- not once a person. Answers {channel: [decision, reason] or [decision, reason, scope]}.
create or replace function tocsin.decide(_type tocsin.event_type, _situation jsonb) returns jsonb
language plpgsql stable
as $$
begin
    -- plpgsql keeps the plan, where an SQL function would make it anew at each call
    return (
        select jsonb_object_agg(
            w.channel,
            case
                when not w.wanted then w.off
                when not w.available then '["off", "no_provider"]'::jsonb
                when w.channel = 'email' and _situation ? 'no_address' then '["off", "no_address"]'::jsonb
                when w.channel = 'email' and _situation ? 'suppressed' then '["off", "suppressed"]'::jsonb
                when w.channel = 'push' and _situation ? 'no_device' then '["off", "no_device"]'::jsonb
                when w.channel = any (_type.mandatory_channels) then '["on", "mandatory"]'::jsonb
                when w.override is null then '["on", "default"]'::jsonb
                else jsonb_build_array('on', 'preference', w.override -> 1)
            end
        )
        from (
            select
                c.channel,
                c.available,
                o.override,
                c.channel = any (_type.mandatory_channels)
                    or coalesce((o.override -> 0)::boolean, c.channel = any (_type.default_channels)) as wanted,
                case
                    when o.override is null then '["off", "default"]'::jsonb
                    else jsonb_build_array('off', 'preference', o.override -> 1)
                end as off
            from tocsin.channel c
            cross join lateral (select _situation -> 'overrides' -> c.channel as override) o
        ) w
    );
end
$$;

-- The situation of each of several people for one event type; unknown people are left out.
create or replace function tocsin.situations(_type tocsin.event_type, _recipients text[])
returns table (recipient_id text, situation jsonb)
language sql stable
as $$
    with strongest as (
        select distinct on (p.recipient_id, p.channel)
            p.recipient_id,
            p.channel,
            p.enabled,
            p.scope
        from unnest(_recipients) u (recipient_id)
        join tocsin.preference p using (recipient_id)
        where p.scope in (_type.event_type, _type.category || '.*', '*')
        -- a type's own override is stronger than its category's, that than the one for all
        order by p.recipient_id, p.channel, p.scope = _type.event_type desc, p.scope <> '*' desc
    ),
    override as (
        select s.recipient_id, jsonb_object_agg(s.channel, jsonb_build_array(s.enabled, s.scope)) as overrides
        from strongest s
        group by s.recipient_id
    )
    select
        r.recipient_id,
        case
            when o.overrides is null and r.email is not null and s.address is null and v.has_device then '{}'::jsonb
            else jsonb_strip_nulls(jsonb_build_object(
                'overrides', o.overrides,
                'no_address', case when r.email is null then true end,
                'suppressed', case when s.address is not null then true end,
                'no_device', case when not v.has_device then true end
            ))
        end
    from unnest(_recipients) u (recipient_id)
    join tocsin.recipient r using (recipient_id)
    left join override o using (recipient_id)
    left join tocsin.suppression s on s.address = lower(r.email)
    cross join lateral (
        select exists (
            select
            from tocsin.device d
            where d.recipient_id = r.recipient_id
                and d.disabled_at is null
        ) as has_device
    ) v
$$;
