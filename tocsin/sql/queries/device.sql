-- name: list_devices
-- A person's devices, the newest registration first.
select
    d.device_id as id,
    right(d.token, 6) as token,
    d.platform,
    d.provider,
    d.environment,
    d.label,
    d.created_at,
    d.registered_at,
    d.disabled_at,
    d.disabled_reason
from tocsin.device d
where d.recipient_id = :recipient_id
order by d.registered_at desc, d.device_id desc;

-- name: register_device
-- Registers a token for a person, and enables it again; the person is created where it is a first write.
with checked as materialized (
    select tocsin.checked_token(:provider, :token) as token, tocsin.checked_label(:label) as label
),
person as (
    insert into tocsin.recipient (recipient_id)
    values (:recipient_id)
    on conflict do nothing
),
known as (
    select d.device_id
    from tocsin.device d
    where d.token = (select c.token from checked c)
        and d.recipient_id = :recipient_id
)
insert into tocsin.device as d (token, recipient_id, platform, provider, environment, label)
select c.token, :recipient_id, :platform, :provider, :environment, c.label
from checked c
on conflict (token) do update
set recipient_id = excluded.recipient_id,
    -- another person's name for it is not this one's
    label = coalesce(excluded.label, case when d.recipient_id = excluded.recipient_id then d.label end),
    platform = excluded.platform,
    provider = excluded.provider,
    environment = excluded.environment,
    registered_at = clock_timestamp(),
    disabled_at = null,
    disabled_reason = null
returning
    d.device_id as id,
    right(d.token, 6) as token,
    d.platform,
    d.provider,
    d.environment,
    d.label,
    d.created_at,
    d.registered_at,
    d.disabled_at,
    d.disabled_reason,
    (select count(*) from known) = 1 as known;

-- name: remove_device!
-- One of a person's own.
delete from tocsin.device d
where d.device_id = :device_id
    and d.recipient_id = :recipient_id;

-- name: unregister_device!
-- By its token, for a client that kept only that.
delete from tocsin.device d
where d.token = tocsin.stored_token(d.provider, :token)
    and d.recipient_id = :recipient_id;
