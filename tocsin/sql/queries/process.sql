-- name: report_process
-- How this process is, in place of its earlier report; renews its leases after a time without one.
select tocsin.report_process(
    :process_id, :kind, :host, :pid, :version, :started_at, :report, :lease
);

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
