-- name: record_mail_events
-- Stores reports of mails, each once; returns the ids of those that are new.
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
returning mail_event_id;

-- name: apply_mail_events
-- Decides the effect of the reports that wait; returns how many, by effect.
select tocsin.apply_mail_events(:hold);
