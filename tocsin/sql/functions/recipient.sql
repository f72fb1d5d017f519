-- Creates a person or changes what is not null.
create or replace function tocsin.upsert_recipient(
    id text,
    email text default null,
    name text default null,
    locale text default null,
    timezone text default null
) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform tocsin.check_recipient($1, $2, $3, $4, $5);
    insert into tocsin.recipient as r (recipient_id, email, name, locale, timezone)
    values ($1, $2, $3, $4, $5)
    on conflict (recipient_id) do update
    set email = coalesce(excluded.email, r.email),
        name = coalesce(excluded.name, r.name),
        locale = coalesce(excluded.locale, r.locale),
        timezone = coalesce(excluded.timezone, r.timezone),
        updated_at = now()
    -- a host app upserts on each sign-in: write only what changes
    where (r.email, r.name, r.locale, r.timezone) is distinct from (
        coalesce(excluded.email, r.email),
        coalesce(excluded.name, r.name),
        coalesce(excluded.locale, r.locale),
        coalesce(excluded.timezone, r.timezone)
    );
end
$$;

-- Erases a person and all that is held of them. Events told to others stay, without the person.
create or replace function tocsin.erase_recipient(_id text) returns boolean
language plpgsql
as $$
declare
    _known boolean;
begin
    delete from tocsin.recipient r where r.recipient_id = _id;
    _known := found;
    delete from tocsin.attempt a
    using tocsin.delivery d, tocsin.notification n
    where n.recipient_id = _id
        and d.notification_id = n.notification_id
        and a.delivery_id = d.delivery_id;
    delete from tocsin.delivery d
    using tocsin.notification n
    where n.recipient_id = _id
        and d.notification_id = n.notification_id;
    -- an event that only this person was told speaks of them
    with theirs as (
        delete from tocsin.event e
        using tocsin.notification n
        where n.recipient_id = _id
            and e.event_id = n.event_id
            and not exists (
                select
                from tocsin.notification o
                where o.event_id = e.event_id
                    and o.recipient_id <> _id
            )
        returning e.event_id
    )
    delete from tocsin.lane l
    using theirs t
    where l.event_id = t.event_id;
    delete from tocsin.notification n where n.recipient_id = _id;
    delete from tocsin.unread_delta d where d.recipient_id = _id;
    delete from tocsin.unread_counter c where c.recipient_id = _id;
    delete from tocsin.inbox_change c where c.recipient_id = _id;
    update tocsin.event e
    set recipients = array_remove(e.recipients, _id)
    where e.told_at is null
        and _id = any (e.recipients);
    update tocsin.event e
    set initiator = null
    where e.initiator = _id;
    return _known;
end
$$;
