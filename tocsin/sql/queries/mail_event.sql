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
