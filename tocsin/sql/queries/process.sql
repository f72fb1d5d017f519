-- name: report_process!
-- How this process is, in place of its earlier report. After a time without one (the database was away; a crash of the server
-- empties this table), it also renews what this process holds: nobody ends these leases before (tocsin.end_leases).
with renewed as (
    update tocsin.lease l
    set until = clock_timestamp() + :lease
    where l.process_id = :process_id
        and not exists (
            select
            from tocsin.process p
            where p.process_id = :process_id
                and p.reported_at >= clock_timestamp() - tocsin.outage_after()
        )
)
insert into tocsin.process as p (process_id, kind, host, pid, version, started_at, reported_at, report)
values (:process_id, :kind, :host, :pid, :version, :started_at, clock_timestamp(), :report)
on conflict (process_id) do update
set reported_at = excluded.reported_at, report = excluded.report;

-- name: forget_process!
-- This process ends as it should.
delete from tocsin.process p
where p.process_id = :process_id;

-- name: processes
-- Every process that said something within the hour, those that have gone silent too.
select
    p.process_id,
    p.kind,
    p.host,
    p.pid,
    p.version,
    p.started_at,
    p.reported_at,
    extract(epoch from clock_timestamp() - p.reported_at)::float8 as silent_for,
    p.report
from tocsin.process p
where p.reported_at > clock_timestamp() - interval '1 hour'
order by p.kind desc, p.started_at, p.process_id
limit 200;
