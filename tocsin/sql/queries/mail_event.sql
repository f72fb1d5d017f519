-- name: record_mail_events
-- Stores reports of mails, each once; returns the kinds of those that are new.
insert into tocsin.mail_event (source, key, kind, reason, dead, delivery_id, provider_id, address, occurred_at)
select
    :source,
    sha256(convert_to(e.key, 'UTF8')),
    e.kind,
    e.reason,
    e.dead,
    e.delivery_id,
    e.provider_id,
    e.address,
    least(e.occurred_at, clock_timestamp())
from jsonb_to_recordset(:events::jsonb) e (
    key text,
    kind text,
    reason text,
    dead boolean,
    delivery_id bigint,
    provider_id text,
    address text,
    occurred_at timestamptz
)
on conflict (source, key) do nothing
returning kind;

-- name: apply_mail_events
-- Decides the effect of the reports that wait; returns how many, by effect.
select tocsin.apply_mail_events(:hold);

-- name: mail_event_counts
-- How many mails were sent and came back since a time.
select
    coalesce(
        (
            select sum(m.n)
            from tocsin.delivery_minute m
            where m.minute >= :since
                and m.channel = 'email'
                and m.state = 'sent'
        ),
        0
    )::bigint as sent,
    count(*) filter (where e.kind = 'bounce') as bounces,
    count(*) filter (where e.kind = 'bounce' and e.dead) as dead,
    count(*) filter (where e.kind = 'complaint') as complaints,
    max(e.applied_at) filter (where e.effect = 'mass_rejection') as mass_rejection_at
from tocsin.mail_event e
where e.received_at >= :since
    and e.delivery_id is not null;

-- name: list_older_suppressions
-- Addresses that must not be mailed, newest first, from a position in the list on; those of one reason, or all.
select
    s.suppression_id as id,
    s.address,
    s.reason,
    s.created_at
from tocsin.suppression s
where (:reason::text is null or s.reason = :reason)
    and (s.created_at, s.suppression_id) < (coalesce(:at, 'infinity'::timestamptz), coalesce(:id, 9223372036854775807))
order by s.created_at desc, s.suppression_id desc
limit :limit;

-- name: list_newer_suppressions
-- Those just after a position in the list, oldest first.
select
    s.suppression_id as id,
    s.address,
    s.reason,
    s.created_at
from tocsin.suppression s
where (:reason::text is null or s.reason = :reason)
    and (s.created_at, s.suppression_id) > (:at::timestamptz, :id::bigint)
order by s.created_at, s.suppression_id
limit :limit;

-- name: lift_suppression
-- Allows mail to an address again, whatever the reason; the reason, and no row where it was not suppressed.
delete from tocsin.suppression s
where s.key = tocsin.address_key(tocsin.compared_address(:address))
returning s.reason;

-- name: lift_suppression_by_id
-- The same by its id in the list, also where the address itself was erased.
delete from tocsin.suppression s
where s.suppression_id = :suppression_id
returning s.reason;

-- name: suppress_address!
-- Suppresses the address of a person without an account.
insert into tocsin.suppression (address, reason)
values (tocsin.compared_address(:address), 'unsubscribed')
on conflict do nothing;

-- name: undo_unsubscribed!
-- Undoes that; a suppression for a bounce or a complaint stays.
delete from tocsin.suppression s
where s.key = tocsin.address_key(tocsin.compared_address(:address))
    and s.reason = 'unsubscribed';

-- name: is_suppressed
-- Whether an address must not be mailed.
select exists (
    select
    from tocsin.suppression s
    where s.key = tocsin.address_key(tocsin.compared_address(:address))
);
