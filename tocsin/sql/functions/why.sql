-- What was decided for the newest notifications of a person, of an event, or of both, on each channel, and what became of the
-- deliveries: [{"state", "reason", "address" (masked), "at", "mail_event", "attempts": [{"at", "outcome", "reason"}]}].
create or replace function tocsin.why(
    recipient text default null,
    event_id bigint default null,
    max_rows integer default 50
) returns table (
    notification_id bigint,
    notified_event_id bigint,
    event_type text,
    title text,
    recipient_id text,
    created_at timestamptz,
    read_at timestamptz,
    channel text,
    decision text,
    reason text,
    scope text,
    deliveries jsonb
)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if $1 is null and $2 is null then
        perform tocsin.raise_invalid('recipient', 'neither recipient nor event_id is given', 'Pass one of them, or both.');
    end if;
    return query
    select
        n.notification_id,
        n.event_id,
        n.event_type,
        e.title,
        n.recipient_id,
        n.created_at,
        n.read_at,
        c.channel,
        case when l.reason is null then a.decisions -> c.channel ->> 0 else 'off' end,
        coalesce(l.reason, a.decisions -> c.channel ->> 1),
        a.decisions -> c.channel ->> 2,
        coalesce(d.deliveries, '[]')
    from (
        select m.*
        from tocsin.notification m
        where ($1 is null or m.recipient_id = $1)
            and ($2 is null or m.event_id = $2)
        order by m.created_at desc, m.notification_id desc
        limit least(greatest($3, 1), 500)
    ) n
    join tocsin.event e on e.event_id = n.event_id
    cross join lateral tocsin.with_absent_channels(n.decisions) a (decisions)
    join tocsin.channel c on a.decisions ? c.channel
    cross join lateral (
        select case when c.channel = 'in_app' and a.decisions -> 'in_app' ->> 0 = 'on' then tocsin.left_inbox(e, n.replaced_by) end
    ) l (reason)
    cross join lateral (
        select jsonb_agg(
            jsonb_build_object(
                'state', w.state,
                'reason', w.reason,
                'address', case when w.target_id is null then tocsin.mask(w.address) else w.address end,
                'at', coalesce(w.settled_at, w.created_at),
                'mail_event', tocsin.mail_event_of(w.delivery_id, w.burst_id),
                'attempts', (
                    select coalesce(
                        jsonb_agg(
                            jsonb_build_object('at', a.at, 'outcome', a.outcome, 'reason', a.reason, 'provider', a.provider)
                            order by a.attempt
                        ),
                        '[]'
                    )
                    from tocsin.attempt a
                    where a.delivery_id = w.delivery_id
                )
            )
            order by w.delivery_id
        ) as deliveries
        from tocsin.delivery w
        where w.notification_id = n.notification_id
            and w.channel = c.channel
    ) d
    order by n.created_at desc, n.notification_id desc, c.position;
end
$$;

-- An address such as `a***e@example.com`; of a device token its last six characters. As mask() of engine/explain/why.py.
create or replace function tocsin.mask(_address text) returns text
language sql immutable
as $$
    select case
        when _address !~ '@' then case when length(_address) > 12 then '***' || right(_address, 6) else '***' end
        when _address ~ '^.{3,}@[^@]*$' then regexp_replace(_address, '^(.).*(.@[^@]*)$', '\1***\2')
        else regexp_replace(_address, '^(.?).*(@[^@]*)$', '\1***\2')
    end
$$;
