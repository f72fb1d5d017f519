-- Creates a person, or changes what is not null; returns whether the person was created.
create or replace function tocsin.store_recipient(
    _id text,
    _email text,
    _name text,
    _locale text,
    _timezone text,
    _avatar_url text
) returns boolean
language plpgsql
as $$
declare
    _created boolean;
begin
    perform tocsin.check_recipient(_id, _email, _name, _locale, _timezone, _avatar_url);
    insert into tocsin.recipient as r (recipient_id, email, name, locale, timezone, avatar_url)
    values (_id, _email, _name, _locale, _timezone, nullif(_avatar_url, ''))
    on conflict (recipient_id) do update
    set email = coalesce(excluded.email, r.email),
        name = coalesce(excluded.name, r.name),
        locale = coalesce(excluded.locale, r.locale),
        timezone = coalesce(excluded.timezone, r.timezone),
        avatar_url = nullif(coalesce(_avatar_url, r.avatar_url), ''),
        updated_at = now()
    -- an app may call it at each sign-in: only changes are written
    where (r.email, r.name, r.locale, r.timezone, r.avatar_url) is distinct from (
        coalesce(excluded.email, r.email),
        coalesce(excluded.name, r.name),
        coalesce(excluded.locale, r.locale),
        coalesce(excluded.timezone, r.timezone),
        nullif(coalesce(_avatar_url, r.avatar_url), '')
    )
    returning r.xmax = 0 into _created;
    return coalesce(_created, false);
end
$$;

-- Creates a recipient or changes what is not null; an empty avatar_url removes the picture.
create or replace function tocsin.upsert_recipient(
    id text,
    email text default null,
    name text default null,
    locale text default null,
    timezone text default null,
    avatar_url text default null
) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
begin
    perform tocsin.store_recipient($1, $2, $3, $4, $5, $6);
end
$$;

-- Erases a person and all data about them. Events of which others were notified too stay, without the person. Returns whether
-- the person was known. finish_erasures() erases what transactions that are open now commit later: the leader calls it, and
-- the HTTP API right after the commit.
create or replace function tocsin.erase_recipient(id text) returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    _id alias for $1;
    _addresses text[];
    _known boolean;
    _erased_at timestamptz;
begin
    if _id is null then
        perform tocsin.raise_invalid('id', 'id is null', 'Pass the id by which your app knows the person.');
    end if;
    -- locked first: what another transaction changes of the person is then committed and seen below
    perform from tocsin.recipient r where r.recipient_id = _id for update;
    _addresses := tocsin.all_addresses_of(_id);
    delete from tocsin.recipient r where r.recipient_id = _id;
    _known := found;
    delete from tocsin.stream_ticket t where t.recipient_id = _id;
    insert into tocsin.erasure (recipient_id, addresses, erased_at)
    values (_id, _addresses, clock_timestamp())
    returning erased_at into _erased_at;
    perform tocsin.erase_personal_data(_id, _addresses, _erased_at);
    -- the person's open streams end
    perform tocsin.announce(array[_id]);
    return _known;
end
$$;

comment on function tocsin.erase_recipient(text) is
    'Erases a person and all data about them when the transaction commits; returns whether the person was known.';

-- Erases all data about an address that belongs to no recipient: its invitations, sent, waiting or scheduled. Its suppression
-- stays as a keyed hash. Returns whether there was anything.
create or replace function tocsin.erase_address(_email text) returns boolean
language plpgsql
as $$
declare
    _address text := tocsin.compared_address(_email);
    _erased_at timestamptz;
    _known boolean;
    _suppressed boolean;
begin
    perform tocsin.check_address(_email);
    if tocsin.find_address_owner(_address) is not null then
        perform tocsin.raise_invalid(
            'email',
            'email belongs to a recipient',
            'Erase that recipient: DELETE /api/recipients/{id}/ takes the address along.'
        );
    end if;
    insert into tocsin.erasure (addresses, erased_at)
    values (array[_address], clock_timestamp())
    returning erased_at into _erased_at;
    _known := tocsin.erase_invitations(array[_address], _erased_at) > 0;
    _suppressed := tocsin.hash_suppressions(array[_address]) > 0;
    return _known or _suppressed;
end
$$;

-- All addresses that are or were a person's: the email, claimed ones, and those that their mails were sent to.
create or replace function tocsin.all_addresses_of(_id text) returns text[]
language sql stable
as $$
    select array(
        select r.address
        from tocsin.recipient r
        where r.recipient_id = _id
            and r.address is not null
        union
        select c.address
        from tocsin.address_owner c
        where c.recipient_id = _id
        union
        select tocsin.compared_address(d.address)
        from tocsin.notification n
        join tocsin.delivery d using (notification_id)
        where n.recipient_id = _id
            and d.channel = 'email'
            and d.address is not null
        union
        select tocsin.compared_address(d.address)
        from tocsin.digest g
        join tocsin.delivery d using (digest_id)
        where g.recipient_id = _id
            and d.address is not null
    )
$$;

-- Suppressions of these addresses stay in force, but the addresses can't be read any more. Returns how many could be read.
create or replace function tocsin.hash_suppressions(_addresses text[]) returns integer
language plpgsql
as $$
declare
    _count integer;
begin
    -- a report whose delivery is not found yet
    delete from tocsin.mail_event m
    where m.applied_at is null
        and tocsin.compared_address(m.address) = any (_addresses);
    update tocsin.suppression s
    set address = null
    where s.key = any (array(select tocsin.address_key(a) from unnest(_addresses) a))
        and s.address is not null;
    get diagnostics _count = row_count;
    return _count;
end
$$;

-- Erases the invitations to these addresses from before a time; none where an address belongs to a recipient. Returns how many.
create or replace function tocsin.erase_invitations(_addresses text[], _before timestamptz) returns integer
language plpgsql
as $$
declare
    _free text[] := array(select a from unnest(_addresses) a where tocsin.find_address_owner(a) is null);
    _events bigint[];
begin
    _events := array(
        select e.event_id
        from tocsin.notification n
        join tocsin.event e using (event_id)
        where n.address = any (_free)
            and n.recipient_id is null
            and e.created_at <= _before
        union
        select e.event_id
        from tocsin.event e
        where (e.fanned_out_at is null or e.email is not null and e.initiator_skipped)
            and e.email is not null
            and e.created_at <= _before
            and tocsin.compared_address(e.email) = any (_free)
    );
    perform tocsin.delete_events(_events);
    return cardinality(_events);
end
$$;

-- Deletes events and everything that belongs to them.
create or replace function tocsin.delete_events(_events bigint[]) returns void
language plpgsql
as $$
begin
    perform from tocsin.event e where e.event_id = any (_events) order by e.event_id for update;
    perform tocsin.delete_deliveries(array(select d.delivery_id from tocsin.delivery d where d.event_id = any (_events)));
    delete from tocsin.event_queue l where l.event_id = any (_events);
    delete from tocsin.digest_item i
    using tocsin.notification n
    where n.event_id = any (_events)
        and i.notification_id = n.notification_id;
    delete from tocsin.action a
    using tocsin.notification n
    where n.event_id = any (_events)
        and a.notification_id = n.notification_id;
    delete from tocsin.notification n where n.event_id = any (_events);
    -- an idempotency key may contain a person's id, and its event is gone
    delete from tocsin.idempotency i where i.event_id = any (_events);
    delete from tocsin.event e where e.event_id = any (_events);
end
$$;

-- Deletes deliveries, their attempts, and the reports on their mails.
create or replace function tocsin.delete_deliveries(_deliveries bigint[]) returns void
language plpgsql
as $$
begin
    delete from tocsin.delivery d where d.delivery_id = any (_deliveries);
    -- in a statement of its own: the one before may have waited for a worker that wrote an attempt's outcome
    delete from tocsin.attempt a where a.delivery_id = any (_deliveries);
    delete from tocsin.mail_event m where m.delivery_id = any (_deliveries);
    delete from tocsin.webhook_message m where m.delivery_id = any (_deliveries);
end
$$;

-- Erases everything that belongs to a person's id and to their addresses. `_before`: when the person was erased.
create or replace function tocsin.erase_personal_data(_id text, _addresses text[], _before timestamptz) returns void
language plpgsql
as $$
declare
    _notifications bigint[];
    _alone bigint[];
begin
    _notifications := array(select n.notification_id from tocsin.notification n where n.recipient_id = _id);
    -- an event of which only this person is notified is about them
    _alone := array(
        select n.event_id
        from tocsin.notification n
        where n.notification_id = any (_notifications)
            and not exists (
                select
                from tocsin.notification o
                where o.event_id = n.event_id
                    and o.recipient_id is distinct from _id
            )
            and not exists (select from tocsin.running_fan_out f where f.event_id = n.event_id)
        union
        select e.event_id
        from tocsin.event e
        where (e.fanned_out_at is null or e.email is not null and e.initiator_skipped)
            and e.recipients = array[_id]
        union
        -- events that the person caused and of which nobody was notified
        select e.event_id
        from tocsin.event e
        where e.initiator = _id
            and (e.fanned_out_at is not null or e.cancelled_at is not null and e.recipients is null)
            and not exists (select from tocsin.notification n where n.event_id = e.event_id)
    );
    -- events before deliveries, in the order in which the dispatcher and cancel() lock them
    perform from tocsin.event e where e.event_id = any (_alone) order by e.event_id for update;
    perform tocsin.erase_from_events(_id);
    perform tocsin.delete_deliveries(array(
        select d.delivery_id
        from tocsin.delivery d
        where d.notification_id = any (_notifications)
        union all
        -- pushes that corrected a badge
        select d.delivery_id
        from tocsin.delivery d
        where d.recipient_id = _id
            and coalesce(d.event_id, d.digest_id) is null
        union all
        select d.delivery_id
        from tocsin.digest g
        join tocsin.delivery d using (digest_id)
        where g.recipient_id = _id
        union all
        -- what app webhooks are sent about the person
        select m.delivery_id
        from tocsin.webhook_message m
        where m.recipient_id = _id
    ));
    delete from tocsin.webhook_outbox o where o.recipient_id = _id;
    delete from tocsin.digest g where g.recipient_id = _id;
    delete from tocsin.digest_item i where i.notification_id = any (_notifications);
    delete from tocsin.action a where a.notification_id = any (_notifications);
    delete from tocsin.notification n where n.notification_id = any (_notifications);
    perform tocsin.delete_events(_alone);
    delete from tocsin.unread_delta d where d.recipient_id = _id;
    delete from tocsin.unread_counter c where c.recipient_id = _id;
    delete from tocsin.inbox_change c where c.recipient_id = _id;
    delete from tocsin.pending_change c where c.recipient_id = _id;
    delete from tocsin.subscription s where s.recipient_id = _id;
    perform tocsin.erase_invitations(_addresses, _before);
    -- last: a worker for which the deletions waited may have suppressed one
    perform tocsin.hash_suppressions(_addresses);
end
$$;

-- Removes a person from events of which others are notified too. The content that the app wrote stays.
create or replace function tocsin.erase_from_events(_id text) returns void
language plpgsql
as $$
begin
    update tocsin.event e
    set recipients = array_remove(e.recipients, _id)
    where (e.fanned_out_at is null or e.email is not null and e.initiator_skipped)
        and _id = any (e.recipients);
    -- where a fan-out came as far as this person: all before them are handled too
    update tocsin.running_fan_out f
    set after = coalesce(
        (select max(n.recipient_id) from tocsin.notification n where n.event_id = f.event_id and n.recipient_id < _id),
        ''
    )
    where f.after = _id;
    update tocsin.event e
    set initiator = null,
        metadata = case when e.metadata ->> 'initiator' = _id then e.metadata - 'initiator' else e.metadata end
    where e.initiator = _id;
    update tocsin.event e
    set metadata = case jsonb_typeof(e.metadata -> 'mentions')
        when 'array' then jsonb_set(
            e.metadata,
            '{mentions}',
            (
                select coalesce(jsonb_agg(m.mention order by m.position), '[]')
                from jsonb_array_elements(e.metadata -> 'mentions') with ordinality m (mention, position)
                where m.mention #>> '{}' <> _id
            )
        )
        else e.metadata - 'mentions'
    end
    where tocsin.is_mentioned(e.metadata, _id);
end
$$;

-- Whether metadata mention a person, whose id may also be a number there. An SQL function that is inlined, so that the index
-- event_mentions is used.
create or replace function tocsin.is_mentioned(_metadata jsonb, _id text) returns boolean
language sql immutable
as $$
    select _metadata ? 'mentions'
        and (
            _metadata -> 'mentions' ? _id
            or _metadata -> 'mentions' @> case when _id ~ '^(0|[1-9][0-9]{0,17})$' then _id::jsonb end
        )
$$;

-- Erases what transactions that were open during an erasure have committed since, and ends an erasure once they are over.
-- Returns how many erasures are not ended.
create or replace function tocsin.finish_erasures() returns integer
language plpgsql
-- the leader's session turns both off
set enable_seqscan = on
set enable_bitmapscan = on
-- rows that an app's open transaction holds are left for the next time
set lock_timeout = '250ms'
as $$
declare
    _erasure tocsin.erasure;
    _open text[];
    _left integer := 0;
begin
    for _erasure in
        select e.*
        from tocsin.erasure e
        order by e.erasure_id
        for update skip locked
    loop
        _open := tocsin.find_open_transactions(_erasure.open_transactions);
        begin
            if _erasure.recipient_id is not null
                and not exists (select from tocsin.recipient r where r.recipient_id = _erasure.recipient_id)
            then
                perform tocsin.erase_personal_data(_erasure.recipient_id, _erasure.addresses, _erasure.erased_at);
            else
                perform tocsin.erase_invitations(_erasure.addresses, _erasure.erased_at);
                perform tocsin.hash_suppressions(_erasure.addresses);
            end if;
        exception when lock_not_available then
            _open := coalesce(_open, '{}') || 'locked';
        end;
        if _open = '{}' or _erasure.erased_at < clock_timestamp() - interval '7 days' then
            delete from tocsin.erasure e where e.erasure_id = _erasure.erasure_id;
        else
            update tocsin.erasure e
            set open_transactions = _open
            where e.erasure_id = _erasure.erasure_id
                and e.open_transactions is distinct from _open;
            _left := _left + 1;
        end if;
    end loop;
    return _left;
end
$$;

-- Which of these transactions of this database are open; null: all open ones. A prepared transaction counts as each of them.
create or replace function tocsin.find_open_transactions(_transactions text[]) returns text[]
language sql volatile
as $$
    select array(
        select l.virtualxid
        from pg_locks l
        join pg_stat_activity a using (pid)
        where l.locktype = 'virtualxid'
            and l.mode = 'ExclusiveLock'
            and l.pid <> pg_backend_pid()
            and a.datid = (select d.oid from pg_database d where d.datname = current_database())
            -- autovacuum has no user
            and a.usesysid is not null
            and (_transactions is null or l.virtualxid = any (_transactions))
        union all
        select 'prepared'
        from pg_prepared_xacts p
        where p.database = current_database()
    )
$$;

-- A new recipient with the id of an erased one gets nothing of that one's data.
create or replace function tocsin.finish_erasure_of_reused_id() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform tocsin.erase_personal_data(e.recipient_id, e.addresses, e.erased_at)
    from tocsin.erasure e
    join made m using (recipient_id);
    delete from tocsin.erasure e
    using made m
    where e.recipient_id = m.recipient_id;
    return null;
end
$$;

create or replace trigger finish_erasure_of_reused_id
after insert on tocsin.recipient
referencing new table as made
for each statement execute function tocsin.finish_erasure_of_reused_id();

-- A delivery in the person's export, with the address in clear.
create or replace function tocsin.exported_delivery(_delivery tocsin.delivery) returns jsonb
language sql stable
as $$
    select jsonb_build_object(
        'channel', _delivery.channel,
        'state', _delivery.state,
        'reason', _delivery.reason,
        'address', _delivery.address,
        'device_id', _delivery.device_id,
        'provider_id', _delivery.provider_id,
        'created_at', tocsin.json_time(_delivery.created_at),
        'due_at', tocsin.json_time(_delivery.due_at),
        'checked_at', tocsin.json_time(_delivery.checked_at),
        'settled_at', tocsin.json_time(_delivery.settled_at),
        'mail_event', tocsin.mail_event_of(_delivery.delivery_id, _delivery.burst_id),
        'attempts', (
            select coalesce(
                jsonb_agg(
                    jsonb_build_object('at', tocsin.json_time(a.at), 'outcome', a.outcome, 'reason', a.reason, 'provider', a.provider)
                    order by a.attempt
                ),
                '[]'
            )
            from tocsin.attempt a
            where a.delivery_id = _delivery.delivery_id
        )
    )
$$;
