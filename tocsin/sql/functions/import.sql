-- Imports notifications of an earlier inbox: each with its time and read state, in the inbox and the badge, and on no channel.
-- No open stream shows them as news. `_rows` is a list of {"key", "recipient", "event_type", "title", "body", "action_url",
-- "metadata", "initiator", "created_at", "read_at"}. A key that was imported before is left out. `faults` has the positions of
-- the rows that were refused, from 1, each with the reason and the cure.
create or replace function tocsin.import_notifications(
    _source text,
    _rows jsonb,
    _create_recipients boolean,
    out imported integer,
    out known integer,
    out faults jsonb
)
language plpgsql
as $$
declare
    _accepted jsonb;
    _decisions jsonb := (
        select jsonb_object_agg(
            c.channel,
            case when c.channel = 'in_app' then '["on", "imported"]'::jsonb else '["off", "imported"]'::jsonb end
        )
        from tocsin.channel c
        where not c.further
    );
    _changed text[];
begin
    if _create_recipients then
        insert into tocsin.recipient (recipient_id)
        select distinct r.entry ->> 'recipient'
        from jsonb_array_elements(_rows) r (entry)
        where length(r.entry ->> 'recipient') <= 200
            and tocsin.is_line(r.entry ->> 'recipient')
        -- in one order, so that two imports can't deadlock
        order by 1
        on conflict do nothing;
    end if;

    with judged as (
        select r.entry, r.position, tocsin.import_fault(r.entry) as fault
        from jsonb_array_elements(_rows) with ordinality r (entry, position)
    )
    select
        coalesce(jsonb_agg(j.entry order by j.entry ->> 'key') filter (where j.fault is null), '[]'),
        coalesce(jsonb_agg(jsonb_build_array(j.position, j.fault) order by j.position) filter (where j.fault is not null), '[]')
    into _accepted, faults
    from judged j;

    with given as (
        select distinct on (r.key) r.*
        from jsonb_to_recordset(_accepted) r (
            key text, recipient text, event_type text, title text, body text, action_url text, metadata jsonb, initiator text,
            created_at timestamptz, read_at timestamptz
        )
        order by r.key
    ),
    new as (
        insert into tocsin.imported (source, key, event_id)
        select _source, g.key, nextval('tocsin.event_event_id_seq')
        from given g
        on conflict do nothing
        returning imported.key, imported.event_id
    ),
    events as (
        insert into tocsin.event (
            event_id, event_type, title, body, action_url, metadata, initiator, caller, created_at, fanned_out_at, expires_at
        )
        select
            n.event_id, g.event_type, g.title, coalesce(g.body, ''), g.action_url, coalesce(g.metadata, '{}'), g.initiator,
            'import:' || _source, g.created_at, g.created_at, g.created_at
        from new n
        join given g using (key)
    ),
    notifications as (
        insert into tocsin.notification (event_id, recipient_id, event_type, created_at, in_inbox, read_at, decisions, xid)
        -- the transaction id of old rows, so that streams do not show them as new
        select n.event_id, g.recipient, g.event_type, g.created_at, true, g.read_at, _decisions, '3'
        from new n
        join given g using (key)
        order by g.created_at, n.event_id
        returning recipient_id, read_at
    ),
    unread as (
        insert into tocsin.unread_delta (recipient_id, n)
        select f.recipient_id, count(*)
        from notifications f
        where f.read_at is null
        group by f.recipient_id
        returning recipient_id
    )
    select
        (select count(*) from new),
        (select array_agg(u.recipient_id) from unread u)
    into imported, _changed;
    known := jsonb_array_length(_accepted) - imported;
    if _changed is not null then
        perform tocsin.wake(_changed);
    end if;
end
$$;

-- What is wrong with one row, and the cure; null where nothing is.
create or replace function tocsin.import_fault(_entry jsonb) returns text
language sql stable
as $$
    select case
        when not exists (
            select
            from tocsin.event_type t
            where t.event_type = _entry ->> 'event_type'
                and t.retired_at is null
        ) then
            format(
                'unknown event type %s; the nearest are %s',
                quote_nullable(left(_entry ->> 'event_type', 60)), tocsin.nearest_event_types(coalesce(_entry ->> 'event_type', ''))
            )
        when not exists (select from tocsin.recipient r where r.recipient_id = _entry ->> 'recipient') then
            format(
                'unknown recipient %s; make the people known first, or use --create-recipients',
                quote_nullable(left(_entry ->> 'recipient', 60))
            )
        when (_entry ->> 'created_at')::timestamptz > now() + interval '1 day' then
            'created_at is in the future; import what has happened, and schedule the rest with notify()'
        when length(_entry ->> 'key') not between 1 and 200 then
            'key is not 1 to 200 characters; use the id of the row'
        else (
            select f.fault[2] || '; ' || f.fault[3]
            from (
                select tocsin.find_content_fault(
                    _entry ->> 'title', coalesce(_entry ->> 'body', ''), null, _entry ->> 'action_url',
                    coalesce(nullif(_entry -> 'metadata', 'null'), '{}'), _entry ->> 'initiator'
                ) as fault
            ) f
        )
    end
$$;
