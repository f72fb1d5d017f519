-- Leases beside the ledger: being made into a job, or claimed, writes no index of the ledger (docs/adr/0024-leases.md).

-- Deliveries that are at work: made into a job (no claim), or claimed by a worker. One that is still so when its lease runs
-- out is due again. Each delivery that is not at its end is in a lane, beyond what was taken of it, or has a due time, or
-- is in a lease.
create table tocsin.lease (
    lease_id bigint generated always as identity primary key,
    channel text not null,
    -- the token of a claim
    claim uuid unique,
    delivery_ids bigint[] not null,
    until timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);

-- end_leases, next_due
create index lease_until on tocsin.lease (until);
-- close_leases: that of a job
create index lease_job on tocsin.lease ((delivery_ids[1])) where claim is null;

-- How far a lane has been made into jobs.
alter table tocsin.lane add column taken bigint not null default 0;

-- What reached its end at one time, many at once: a batch is one entry of an index, where each delivery by itself would
-- have to leave its page for one.
create table tocsin.ending (
    settled_at timestamptz not null,
    delivery_ids bigint[] not null
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);

-- tocsin.ended, forget_endings
create index ending_settled on tocsin.ending (settled_at);

insert into tocsin.ending (settled_at, delivery_ids)
select d.settled_at, array_agg(d.delivery_id)
from tocsin.delivery d
where d.settled_at >= (select m.upto - interval '1 minute' from tocsin.delivery_minute_mark m)
group by d.settled_at;

drop index tocsin.delivery_settled;

-- A claim, and then that it was sent, stay on a delivery's page as long as no column of any index changes. So none has its
-- state or its end: a failure has a time of its own.
alter table tocsin.delivery
    add column failed_at timestamptz generated always as (case when state = 'failed' then settled_at end) stored;
-- room for both on the page
alter table tocsin.delivery set (fillfactor = 45);

drop index tocsin.delivery_failed;
-- dead_letters, dead_letter_reasons: all that they filter and sort by, so that only what is shown is fetched. A badge's
-- push is none: the next one corrects it.
create index delivery_failed on tocsin.delivery (failed_at desc, delivery_id desc) include (channel, reason)
    where failed_at is not null and coalesce(event_id, digest_id) is not null;

drop index tocsin.delivery_badge_push;
-- correct_badges: is one waiting for this device? erase_traces
create index delivery_badge_push on tocsin.delivery (recipient_id, device_id)
    where coalesce(event_id, digest_id) is null;

drop index tocsin.delivery_badge_push_over;
-- clean_up_badge_pushes
create index delivery_badge_push_over on tocsin.delivery (created_at)
    where coalesce(event_id, digest_id) is null;

drop function if exists tocsin.defer_jobs(text, smallint, bigint[]);
