-- Decides which channels reach a person for an event type, and the reason for each.
--
-- `_facts` has only what differs from person to person: {"overrides": {channel: [enabled, scope]}, "no_address": true,
-- "suppressed": true, "no_device": true, "digest": true, "muted": reason, "further": [channel]}. People with equal facts get one
-- decision, so a fan-out decides a few times, not once for each person. A further channel is decided only where `further` has it.
-- Returns {channel: [decision, reason] or [decision, reason, scope]}.
create or replace function tocsin.decide(_type tocsin.event_type, _facts jsonb) returns jsonb
language plpgsql stable
as $$
begin
    -- plpgsql keeps the plan; an SQL function would be planned at each call
    return (
        select jsonb_object_agg(
            w.channel,
            case
                when _facts ? 'muted' and not w.mandatory then jsonb_build_array('off', _facts ->> 'muted')
                when not w.wanted and not w.digest then w.off
                when not w.available then '["off", "no_provider"]'::jsonb
                when w.channel = 'email' and _facts ? 'no_address' then '["off", "no_address"]'::jsonb
                when w.channel = 'email' and _facts ? 'suppressed' then '["off", "suppressed"]'::jsonb
                when w.channel = 'push' and _facts ? 'no_device' then '["off", "no_device"]'::jsonb
                when w.mandatory then '["on", "mandatory"]'::jsonb
                when w.digest then '["off", "digest"]'::jsonb
                when w.override is null then '["on", "default"]'::jsonb
                else jsonb_build_array('on', 'preference', w.override -> 1)
            end
        )
        from (
            select
                c.channel,
                c.available,
                o.override,
                c.channel = any (_type.mandatory_channels) as mandatory,
                -- a digest takes what it covers, unless an override turns email off for it
                c.channel = 'email'
                    and _facts ? 'digest'
                    and c.channel <> all (_type.mandatory_channels)
                    and coalesce((o.override -> 0)::boolean, true) as digest,
                c.channel = any (_type.mandatory_channels)
                    or coalesce((o.override -> 0)::boolean, tocsin.is_default(_type, c.channel)) as wanted,
                case
                    when o.override is null then '["off", "default"]'::jsonb
                    else jsonb_build_array('off', 'preference', o.override -> 1)
                end as off
            from tocsin.channel c
            cross join lateral (select _facts -> 'overrides' -> c.channel as override) o
            where not c.further
                or _facts -> 'further' ? c.channel
        ) w
    );
end
$$;

-- Whether a channel is on where the person chose nothing: a browser's push where the type lists push, a person's webhook and chat
-- always, since somebody made the target for that.
create or replace function tocsin.is_default(_type tocsin.event_type, _channel text) returns boolean
-- a body that the planner inlines
language sql immutable
as $$
    select case _channel
        when 'web_push' then (_type).default_channels || (_type).mandatory_channels && '{push,web_push}'
        when 'webhook' then true
        when 'chat' then true
        else _channel = any ((_type).default_channels)
    end
$$;

-- The further channels of which a person has a live subscription or target now.
create or replace function tocsin.further_channels_of(_recipient_id text) returns text[]
language sql stable
as $$
    select array(
        select 'web_push'
        where exists (
            select
            from tocsin.device v
            where v.recipient_id = _recipient_id
                and v.provider = 'web_push'
                and v.disabled_at is null
        )
        union
        select g.channel
        from tocsin.target g
        where g.recipient_id = _recipient_id
            and g.disabled_at is null
        order by 1
    )
$$;

-- A person's facts as an object; facts that don't apply are left out.
create or replace function tocsin.make_facts(
    _overrides jsonb,
    _no_address boolean,
    _suppressed boolean,
    _no_device boolean,
    _digest boolean,
    _muted text,
    _further text[]
) returns jsonb
-- a body that the planner inlines
language sql stable
as $$
    select case
        -- the facts of most people, without building an object
        when coalesce(_overrides, to_jsonb(_further)) is null and _muted is null and not (_no_address or _suppressed or _digest) then
            case when _no_device then '{"no_device": true}'::jsonb else '{}' end
        else jsonb_strip_nulls(jsonb_build_object(
            'overrides', _overrides,
            'no_address', nullif(_no_address, false),
            'suppressed', nullif(_suppressed, false),
            'no_device', nullif(_no_device, false),
            'digest', nullif(_digest, false),
            'muted', _muted,
            'further', to_jsonb(_further)
        ))
    end
$$;

-- The decisions of an event type for people who chose nothing, in the order of no_address, suppressed, no_device. They are
-- stored, and most calls look them up there.
create or replace function tocsin.default_decisions(_type tocsin.event_type) returns jsonb
language sql stable
as $$
    select jsonb_agg(
        tocsin.decide(_type, tocsin.make_facts(null, a.no_address, b.suppressed, c.no_device, false, null, null))
        order by a.no_address, b.suppressed, c.no_device
    )
    from (values (false), (true)) a (no_address)
    cross join (values (false), (true)) b (suppressed)
    cross join (values (false), (true)) c (no_device)
$$;

-- Stores them when the channels of an event type change.
create or replace function tocsin.set_default_decisions() returns trigger
language plpgsql
as $$
begin
    -- a channel that becomes available meanwhile updates them afterwards
    perform from tocsin.channel c for share;
    new.default_decisions := tocsin.default_decisions(new);
    return new;
end
$$;

create or replace trigger set_default_decisions
before insert or update of default_channels, mandatory_channels on tocsin.event_type
for each row execute function tocsin.set_default_decisions();

-- Stores them when a channel becomes available or unavailable.
create or replace function tocsin.refresh_default_decisions() returns trigger
language plpgsql
as $$
begin
    -- also runs for statements that changed no row
    update tocsin.event_type t
    set default_decisions = tocsin.default_decisions(t)
    where t.default_decisions is distinct from tocsin.default_decisions(t);
    return null;
end
$$;

create or replace trigger refresh_default_decisions
after insert or delete or update of available on tocsin.channel
for each statement execute function tocsin.refresh_default_decisions();

-- What these people chose for an event type: {channel: [enabled, scope]}; only those who chose something.
create or replace function tocsin.overrides_of(_type tocsin.event_type, _people text[])
returns table (recipient_id text, overrides jsonb)
-- a body that the planner inlines, like that of the next one
language sql stable
as $$
    -- The last one of a channel stays: an override of the type, else of its category, else of "*".
    select
        p.recipient_id,
        jsonb_object_agg(
            p.channel,
            jsonb_build_array(p.enabled, p.scope)
            order by p.scope = _type.event_type, p.scope <> '*'
        )
    from tocsin.preference p
    where p.recipient_id = any (_people)
        and p.scope in (_type.event_type, _type.category || '.*', '*')
    group by p.recipient_id
$$;

-- Those of these people whose digest takes an event type.
create or replace function tocsin.digest_takers(_type tocsin.event_type, _people text[]) returns table (recipient_id text)
language sql stable
as $$
    select g.recipient_id
    from tocsin.digest_preference g
    where g.recipient_id = any (_people)
        and g.frequency <> 'off'
        and _type.allows_digest
        and _type.category = any (coalesce(g.categories, array[_type.category]))
    offset 0
$$;

-- The facts of several people for one event type; unknown people are left out. `_because` goes with `_people`: why each of
-- them is notified, for the followers of a topic.
--
-- Each table is read once for all people, by an index (`= any (_people)`): so no plan depends on what pages are estimated to
-- cost, and a person costs no look-up in a table that has nothing of theirs.
create or replace function tocsin.recipient_facts(_type tocsin.event_type, _people text[], _because text[])
returns table (recipient_id text, because text, facts jsonb)
language sql stable
as $$
    select
        r.recipient_id,
        u.because,
        tocsin.make_facts(
            p.overrides, r.no_address, r.suppressed, d.recipient_id is null, g.recipient_id is not null,
            case when u.because in ('muted', 'not_mentioned') then u.because end,
            r.further
        )
    from unnest(_people, _because) u (recipient_id, because)
    join (
        select
            r.recipient_id,
            r.email is null as no_address,
            -- `offset 0`: never by reading the whole table
            exists (select from tocsin.suppression s where s.key = r.address_key offset 0) as suppressed,
            case when r.further_channels <> '{}' then nullif(tocsin.further_channels_of(r.recipient_id), '{}') end as further
        from tocsin.recipient r
        where r.recipient_id = any (_people)
        offset 0
    ) r using (recipient_id)
    left join (
        select d.recipient_id
        from tocsin.device d
        where d.recipient_id = any (_people)
            and d.provider <> 'web_push'
            and d.disabled_at is null
        group by d.recipient_id
    ) d using (recipient_id)
    left join tocsin.digest_takers(_type, _people) g using (recipient_id)
    left join tocsin.overrides_of(_type, _people) p using (recipient_id)
$$;
