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
set standard_conforming_strings = on
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
    _addresses text[] := array(
        select r.address
        from tocsin.recipient r
        where r.recipient_id = _id
            and r.address is not null
        union
        select c.address
        from tocsin.claim c
        where c.recipient_id = _id
    );
begin
    delete from tocsin.recipient r where r.recipient_id = _id;
    _known := found;
    perform tocsin.erase_invitations(_addresses);
    insert into tocsin.erasure as e (recipient_id)
    values (_id)
    on conflict (recipient_id) do update
    set erased_at = excluded.erased_at;
    perform tocsin.erase_traces(_id);
    return _known;
end
$$;

-- What an address was invited to before it was anybody's, or is to be; nothing where it is somebody else's too.
create or replace function tocsin.erase_invitations(_addresses text[]) returns void
language plpgsql
as $$
declare
    _free text[] := array(select a from unnest(_addresses) a where tocsin.address_owner(a) is null);
    _events bigint[] := array(
        select n.event_id
        from tocsin.notification n
        where n.address = any (_free)
            and n.recipient_id is null
        union
        select e.event_id
        from tocsin.event e
        where e.told_at is null
            and e.cancelled_at is null
            and e.email is not null
            and tocsin.compared_address(e.email) = any (_free)
    );
begin
    delete from tocsin.attempt a
    using tocsin.delivery d
    where d.event_id = any (_events)
        and a.delivery_id = d.delivery_id;
    delete from tocsin.delivery d where d.event_id = any (_events);
    delete from tocsin.lane l where l.event_id = any (_events);
    delete from tocsin.notification n where n.event_id = any (_events);
    delete from tocsin.event e where e.event_id = any (_events);
end
$$;

-- All that hangs on a person's id.
create or replace function tocsin.erase_traces(_id text) returns void
language plpgsql
as $$
begin
    delete from tocsin.attempt a
    using tocsin.delivery d, tocsin.notification n
    where n.recipient_id = _id
        and d.notification_id = n.notification_id
        and a.delivery_id = d.delivery_id;
    delete from tocsin.delivery d
    using tocsin.notification n
    where n.recipient_id = _id
        and d.notification_id = n.notification_id;
    -- pushes that corrected a badge
    with gone as (
        delete from tocsin.delivery d
        where d.recipient_id = _id
            and coalesce(d.event_id, d.digest_id) is null
        returning d.delivery_id
    )
    delete from tocsin.attempt a
    using gone g
    where a.delivery_id = g.delivery_id;
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
    delete from tocsin.attempt a
    using tocsin.delivery d, tocsin.digest g
    where g.recipient_id = _id
        and d.digest_id = g.digest_id
        and a.delivery_id = d.delivery_id;
    delete from tocsin.delivery d
    using tocsin.digest g
    where g.recipient_id = _id
        and d.digest_id = g.digest_id;
    delete from tocsin.digest g where g.recipient_id = _id;
    delete from tocsin.digest_item i
    using tocsin.notification n
    where n.recipient_id = _id
        and i.notification_id = n.notification_id;
    delete from tocsin.notification n where n.recipient_id = _id;
    delete from tocsin.unread_delta d where d.recipient_id = _id;
    delete from tocsin.unread_counter c where c.recipient_id = _id;
    delete from tocsin.inbox_change c where c.recipient_id = _id;
    delete from tocsin.subscription s where s.recipient_id = _id;
    update tocsin.event e
    set recipients = array_remove(e.recipients, _id)
    where e.told_at is null
        and _id = any (e.recipients);
    update tocsin.event e
    set initiator = null
    where e.initiator = _id;
end
$$;

-- What an app's transaction, open while its person was erased, brought back. Answers how many people had something.
create or replace function tocsin.sweep_erased() returns integer
language plpgsql
as $$
declare
    _id text;
    _count integer := 0;
begin
    for _id in
        select e.recipient_id
        from tocsin.erasure e
        where not exists (select from tocsin.recipient r where r.recipient_id = e.recipient_id)
            and (
                exists (select from tocsin.notification n where n.recipient_id = e.recipient_id)
                or exists (select from tocsin.subscription s where s.recipient_id = e.recipient_id)
                or exists (
                    select
                    from tocsin.delivery d
                    where d.recipient_id = e.recipient_id
                        and coalesce(d.event_id, d.digest_id) is null
                )
            )
    loop
        perform tocsin.erase_traces(_id);
        _count := _count + 1;
    end loop;
    delete from tocsin.erasure e
    where e.erased_at < clock_timestamp() - interval '7 days';
    return _count;
end
$$;

-- Somebody new by the id of an erased person finds nothing of theirs.
create or replace function tocsin.forget_erased() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform tocsin.erase_traces(e.recipient_id)
    from tocsin.erasure e
    join made m using (recipient_id);
    delete from tocsin.erasure e
    using made m
    where e.recipient_id = m.recipient_id;
    return null;
end
$$;

create or replace trigger forget_erased
after insert on tocsin.recipient
referencing new table as made
for each statement execute function tocsin.forget_erased();
