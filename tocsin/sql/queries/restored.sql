-- name: settle_restored
-- Settles deliveries that were sent after the backup; how many, by channel.
select channel, n
from tocsin.settle_restored(:delivery_ids, :sent_ats, :providers);

-- name: hold_restored
-- Holds what may have been sent after the backup; how many, by channel.
select channel, n
from tocsin.hold_restored();

-- name: unknown_deliveries
-- What is due and may have been sent after the backup: how many, by channel.
select
    d.channel,
    count(*)
from tocsin.delivery d
where d.state in ('queued', 'sending', 'deferred')
    and coalesce(d.event_id, d.digest_id) is not null
    and coalesce(d.due_at, d.created_at) <= clock_timestamp()
group by d.channel
order by d.channel;

-- name: overdue_events
-- Scheduled events that are due: they may have been sent after the backup.
select e.event_id
from tocsin.event e
where e.fanned_out_at is null
    and e.cancelled_at is null
    and e.send_at <= clock_timestamp()
order by e.event_id;

-- name: overdue_digests
-- How many people's digests are due: they may have been sent after the backup.
select count(*)
from tocsin.digest_preference p
where p.next_at <= clock_timestamp();

-- name: skip_ids
-- Lets ids continue later by so many.
select tocsin.skip_ids(:by);

-- name: running_processes
-- Processes that reported in the last half minute.
select
    p.kind,
    p.host,
    p.pid
from tocsin.process p
where p.reported_at > clock_timestamp() - interval '30 seconds'
order by p.kind, p.host, p.pid;
