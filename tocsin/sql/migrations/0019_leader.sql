-- The elected leader, and whose claims a lease holds: so that no election depends on a lock that any login may take, and an
-- outage of the database ends no lease of a process that lives (docs/adr/0028-leader-row.md, 0029-outages-and-leases.md).

-- One row. Only roles of the service may write it.
create table tocsin.leader (
    only_row boolean primary key default true check (only_row),
    -- the database session of the leader's listener; null before the first election
    backend_pid integer,
    backend_start timestamptz,
    -- the leader writes it every few seconds
    beat_at timestamptz not null default '-infinity',
    -- when a process of the service last reached the database, at most a second ago while there is one
    reached_at timestamptz not null default '-infinity',
    -- when one did so after a time in which none could
    outage_ended_at timestamptz not null default '-infinity'
) with (fillfactor = 50);

insert into tocsin.leader default values;

-- The process that holds the claim; null for the lease of a job, and for claims of workers of earlier versions.
alter table tocsin.lease add column process_id uuid;
