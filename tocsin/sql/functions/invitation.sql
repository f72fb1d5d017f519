-- Invitations: events for a person known only by an address, and the claim that assigns them to a recipient.
--
-- Until its address is claimed, a notification is pending: it has no recipient, is in no inbox, and has one mail. An open
-- transaction can't see rows of another one, so a claim may miss an invitation that is committed after it, and the other
-- way round. The leader finds whichever is committed later, and assigns what belongs to the claimant; nobody waits for it.

create or replace function tocsin.notify_email(
    email text,
    event_type text,
    title text,
    body text default '',
    action_url text default null,
    metadata jsonb default '{}',
    initiator text default null,
    idempotency_key text default null,
    body_html text default null,
    send_at timestamptz default null,
    subject text default null,
    replaces boolean default false,
    content jsonb default null,
    actions jsonb default null,
    unknown text default 'error'
) returns bigint
language sql
security definer
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
    -- as tocsin.notify; a null address is refused like an empty one
    select e.event_id
    from tocsin.create_event(
        ('role:' || session_user) collate "default", $2, null, null, coalesce($1, ''), $3, $4, $5, $6, $7, $8, $9, $10,
        false, $11, $12, $13, $14, $15
    ) e
$$;

-- Assigns an address to a recipient: what is pending for it, and what comes for it from now on, is that person's. The caller
-- has verified the address. Returns how many notifications came into the inbox at once.
create or replace function tocsin.claim_email(email text, recipient text) returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    _address text;
begin
    perform tocsin.check_address(coalesce($1, ''));
    perform tocsin.check_recipients_known(array[$2], 'recipient');
    _address := tocsin.compared_address($1);
    -- read first: an app may claim at each sign-in, and `on conflict` locks the row in any case
    if not exists (select from tocsin.address_owner c where c.address = _address and c.recipient_id = $2) then
        insert into tocsin.address_owner as c (address, recipient_id)
        values (_address, $2)
        on conflict (address) do update
        set recipient_id = excluded.recipient_id, claimed_at = excluded.claimed_at, xid = excluded.xid;
    end if;
    perform tocsin.adopt_opt_out(_address, $2);
    perform tocsin.wake();
    return (select h.assigned from tocsin.assign_invitations(array[_address]) h);
end
$$;

-- Fans an event out to the recipient to whom its address belongs, or else to the address: one mail, unless it is suppressed.
-- Returns 1, or 0 where the address is the initiator's own.
create or replace function tocsin.fan_out_to_address(_event tocsin.event, _type tocsin.event_type, _now timestamptz) returns integer
language plpgsql
as $$
declare
    _address text := tocsin.compared_address(_event.email);
    _owner text := tocsin.find_address_owner(_address);
    _notification_id bigint;
begin
    if _owner = _event.initiator then
        return 0;
    elsif _owner is not null then
        return tocsin.fan_out(_event.event_id, _type, array[_owner], null, _now, _event.subject);
    end if;
    with pending as (
        insert into tocsin.notification (event_id, address, event_type, subject, created_at, in_inbox, decisions)
        values (_event.event_id, _address, _type.event_type, _event.subject, _now, false, tocsin.decide_invitation(_address))
        returning notification_id, decisions
    ),
    queued as (
        -- states: new -> queued
        insert into tocsin.delivery (notification_id, event_id, channel, created_at)
        select p.notification_id, _event.event_id, 'email', _now
        from pending p
        where p.decisions -> 'email' ->> 0 = 'on'
        returning channel
    ),
    queue as (
        insert into tocsin.event_queue (event_id, channel, priority)
        select _event.event_id, q.channel, _type.priority
        from queued q
    )
    select p.notification_id
    into _notification_id
    from pending p;
    if _type.reports_created then
        perform tocsin.report('notification.created', null, array[_notification_id]);
    end if;
    return 1;
end
$$;

-- Which channels reach an address without an account: a mail is what the caller asked for, whatever the type's default is.
create or replace function tocsin.decide_invitation(_address text) returns jsonb
language sql stable
as $$
    select jsonb_object_agg(
        c.channel,
        case
            when c.channel <> 'email' then '["off", "no_account"]'::jsonb
            when not c.available then '["off", "no_provider"]'::jsonb
            when exists (select from tocsin.suppression s where s.key = tocsin.address_key(_address)) then '["off", "suppressed"]'::jsonb
            else '["on", "invited"]'::jsonb
        end
    )
    from tocsin.channel c
    where not c.further
$$;

-- Assigns what is pending for these addresses to the recipients who claimed them: into their inbox, unread, with its original
-- time, unless they turned the inbox off for it. Cancelled events and what the claimant caused are left out. `busy`: addresses
-- of which another transaction holds something just now.
create or replace function tocsin.assign_invitations(_addresses text[], out assigned integer, out busy text[])
language plpgsql
as $$
declare
    _ids bigint[];
    _moved text[];
begin
    -- Locked first and read in the next statement: a cancel that was committed before is seen there, and one that comes
    -- later waits, and then finds the notification in the inbox.
    _ids := array(
        select n.notification_id
        from tocsin.notification n
        join tocsin.address_owner c using (address)
        where n.address = any (_addresses)
            and n.recipient_id is null
        order by n.notification_id
        for update of n skip locked
    );
    with theirs as (
        select
            n.notification_id,
            c.recipient_id,
            coalesce(p.enabled, true) or 'in_app' = any (t.mandatory_channels) as wanted,
            p.scope
        from tocsin.notification n
        join tocsin.address_owner c using (address)
        join tocsin.event e using (event_id)
        join tocsin.event_type t on t.event_type = n.event_type
        left join lateral (
            select p.enabled, p.scope
            from tocsin.preference p
            where p.recipient_id = c.recipient_id
                and p.channel = 'in_app'
                and p.scope in (t.event_type, t.category || '.*', '*')
            order by p.scope = t.event_type desc, p.scope <> '*' desc
            limit 1
        ) p on true
        where n.notification_id = any (_ids)
            and n.recipient_id is null
            and e.cancelled_at is null
            and e.initiator is distinct from c.recipient_id
    ),
    given as (
        update tocsin.notification n
        set recipient_id = t.recipient_id,
            in_inbox = t.wanted,
            decisions = n.decisions || jsonb_build_object(
                'in_app',
                case when t.wanted then '["on", "claimed"]' else jsonb_build_array('off', 'preference', t.scope) end
            ),
            -- so that it is new to the person's open streams
            xid = pg_current_xact_id()
        from theirs t
        where n.notification_id = t.notification_id
        returning n.recipient_id, n.in_inbox
    ),
    unread as (
        insert into tocsin.unread_delta (recipient_id, n)
        select g.recipient_id, count(*)
        from given g
        where g.in_inbox
        group by g.recipient_id
    )
    select count(*), array_agg(distinct g.recipient_id) filter (where g.in_inbox)
    into assigned, _moved
    from given g;
    if assigned > 0 then
        perform tocsin.wake(_moved);
    end if;
    busy := array(
        select distinct n.address
        from tocsin.notification n
        join tocsin.address_owner c using (address)
        where n.address = any (_addresses)
            and n.recipient_id is null
            and n.notification_id <> all (_ids)
    );
end
$$;

-- Addresses with something to assign that was committed since a snapshot (null: at any time): the claim, or the invitation.
-- From what is new on one side to the other side, one by one: the planner would join all rows of both.
create or replace function tocsin.assignable_since(_since pg_snapshot) returns text[]
language plpgsql stable
as $$
begin
    -- plpgsql keeps the plan
    return (
        with before as (
            select
                coalesce(pg_snapshot_xmax(_since), '0'::xid8) as next,
                array(select pg_snapshot_xip(_since)) as open
        ),
        claimed as (
            select c.address from tocsin.address_owner c, before b where c.xid >= b.next
            union all
            select c.address from tocsin.address_owner c, before b where c.xid = any (b.open)
        ),
        pending as (
            select n.address from tocsin.notification n, before b where n.recipient_id is null and n.xid >= b.next
            union all
            select n.address from tocsin.notification n, before b where n.recipient_id is null and n.xid = any (b.open)
        )
        select array(
            select c.address
            from claimed c
            cross join lateral (
                select from tocsin.notification n where n.address = c.address and n.recipient_id is null limit 1
            ) n
            -- an address may come twice: removing duplicates would cost more than the look-up
            union all
            select p.address
            from pending p
            cross join lateral (
                select from tocsin.address_owner c where c.address = p.address limit 1
            ) c
        )
    );
end
$$;

-- An address that was unsubscribed before its owner had an account: the choice becomes an override, which the person can
-- change.
create or replace function tocsin.adopt_opt_out(_address text, _recipient_id text) returns void
language sql
as $$
    with lifted as (
        delete from tocsin.suppression s
        where s.key = tocsin.address_key(_address)
            and s.reason = 'unsubscribed'
        returning s.created_at
    )
    insert into tocsin.preference as p (recipient_id, scope, channel, enabled)
    select _recipient_id, '*', 'email', false
    from lifted l
    on conflict (recipient_id, scope, channel) do update
    set enabled = false, updated_at = excluded.updated_at
    -- not over a choice that the person made later
    where p.enabled
        and p.updated_at < (select l.created_at from lifted l)
$$;
