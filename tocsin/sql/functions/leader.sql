-- The leader: one process listens and dispatches for all.
--
-- It is a row, which only roles of the service may write. An advisory lock would do the same, but any login may take one.
-- The row names the database session of the leader's listener. A leader is gone when that session is, or when it did not
-- write its beat for some seconds.
--
-- The row also shows when the database was away: each process writes into it that it reached the database, every few seconds.

-- If no process reached the database for longer than this, it was away.
create or replace function tocsin.outage_after() returns interval
language sql immutable
as $$
    select interval '8 seconds'
$$;

-- After an outage, the claims of a process that did not report since are kept for so long. Then it is taken to be dead.
create or replace function tocsin.outage_grace() returns interval
language sql immutable
as $$
    select interval '60 seconds'
$$;

-- Notes that a process reached the database at this time, and an outage where none did before. The row may be held by a
-- process that notes the same, or by a session that is in the way: then it is not waited for.
create or replace function tocsin.record_reachable(_now timestamptz) returns void
language sql
as $$
    update tocsin.leader l
    set reached_at = _now,
        outage_ended_at = case
            when f.reached_at > '-infinity' and (
                f.reached_at < _now - tocsin.outage_after()
                -- short ones may follow one another
                or f.reached_at < pg_postmaster_start_time()
                -- the clock was put back
                or f.reached_at > _now + interval '1 second'
            ) then _now
            else f.outage_ended_at
        end
    from (
        select e.only_row, e.reached_at, e.outage_ended_at
        from tocsin.leader e
        where e.reached_at not between _now - interval '1 second' and _now
        for update skip locked
    ) f
    where l.only_row = f.only_row
$$;

-- Whether a session is still there. Its start is hidden from roles that may not see it: then the process id
-- alone has to do.
create or replace function tocsin.session_exists(_pid integer, _start timestamptz) returns boolean
language sql stable
as $$
    -- without a process id, the function returns all sessions
    select _pid is not null and exists (
        select
        from pg_stat_get_activity(_pid) a
        where a.backend_start is null
            or a.backend_start = _start
    )
$$;

-- Makes this session the leader where there is none, or where the leader was silent for too long: then that one's session is
-- ended, as far as this role may. Returns true for the new leader.
create or replace function tocsin.try_lead(_silent_for interval) returns boolean
language plpgsql
as $$
declare
    _now timestamptz := clock_timestamp();
    _leader tocsin.leader;
begin
    select l.* into _leader
    from tocsin.leader l;
    if _leader.heartbeat_at between _now - _silent_for and _now + _silent_for and tocsin.session_exists(_leader.backend_pid, _leader.backend_start) then
        return false;
    end if;
    -- again, now that nobody else can change it
    select l.* into _leader
    from tocsin.leader l
    for update skip locked;
    if not found or _leader.heartbeat_at between _now - _silent_for and _now + _silent_for and tocsin.session_exists(_leader.backend_pid, _leader.backend_start) then
        return false;
    end if;
    perform tocsin.record_reachable(_now);
    update tocsin.leader l
    set backend_pid = pg_backend_pid(),
        backend_start = (select a.backend_start from pg_stat_get_activity(pg_backend_pid()) a),
        heartbeat_at = _now
    where l.only_row;
    if tocsin.session_exists(_leader.backend_pid, _leader.backend_start) then
        begin
            perform pg_terminate_backend(_leader.backend_pid);
        exception when insufficient_privilege then
            null; -- it learns from its next beat that it no longer leads
        end;
    end if;
    return true;
end
$$;

-- Writes the leader's beat. Returns false where another session leads. While somebody holds the row, no beat is written, and
-- the leader goes on.
create or replace function tocsin.record_heartbeat() returns boolean
language plpgsql
as $$
declare
    _now timestamptz := clock_timestamp();
    _leader tocsin.leader;
begin
    select l.* into _leader
    from tocsin.leader l
    for update skip locked;
    if not found then
        return true;
    end if;
    if _leader.backend_pid is distinct from pg_backend_pid() or not tocsin.session_exists(_leader.backend_pid, _leader.backend_start) then
        return false;
    end if;
    perform tocsin.record_reachable(_now);
    update tocsin.leader l
    set heartbeat_at = _now
    where l.only_row;
    return true;
end
$$;

-- Writes how a process is, in place of its earlier report. After a time without one (the database was away; a crash of the server
-- empties the table), it also renews what this process holds: nobody ends these leases before (tocsin.end_leases).
create or replace function tocsin.report_process(
    _process_id uuid,
    _kind text,
    _host text,
    _pid integer,
    _version text,
    _started_at timestamptz,
    _report jsonb,
    _lease interval
) returns void
language plpgsql
as $$
declare
    _now timestamptz := clock_timestamp();
begin
    perform tocsin.record_reachable(_now);
    if not exists (
        select
        from tocsin.process p
        where p.process_id = _process_id
            and p.reported_at >= _now - tocsin.outage_after()
    ) then
        update tocsin.lease l
        set until = _now + _lease
        where l.process_id = _process_id;
    end if;
    insert into tocsin.process as p (process_id, kind, host, pid, version, started_at, reported_at, report)
    values (_process_id, _kind, _host, _pid, _version, _started_at, _now, _report)
    on conflict (process_id) do update
    set reported_at = excluded.reported_at, report = excluded.report;
end
$$;

-- Sessions of others that are in the way of the service: what each blocks, and since when. An operator may end them. Of a role
-- that this one is no member of, PostgreSQL hides address and times: they are null.
create or replace function tocsin.blocking_sessions()
returns table (pid integer, role_name text, application_name text, client text, since timestamptz, blocks text)
language sql stable
as $$
    select
        a.pid,
        a.usename::text,
        a.application_name,
        host(a.client_addr),
        coalesce(a.xact_start, a.backend_start),
        b.blocks
    from (
        -- the leader alone holds it in this mode: otherwise each commit has to send its own wake-up, which costs speed
        select l.pid, 'the wake-up lock' as blocks
        from pg_locks l
        cross join tocsin.leader e
        where l.locktype = 'advisory'
            and l.database = (select d.oid from pg_database d where d.datname = current_database())
            and l.classid = 1953457011
            and l.objid = 1
            and l.objsubid = 2
            and l.granted
            and l.mode = 'ExclusiveLock'
            and l.pid is distinct from e.backend_pid
        union all
        -- those that a session of the service waits for, by locks on tables of the service
        select u.pid, 'table ' || string_agg(distinct (w.relation::regclass)::text, ', ')
        from pg_locks w
        join pg_class c on c.oid = w.relation
        join pg_namespace n on n.oid = c.relnamespace
        cross join lateral unnest(pg_blocking_pids(w.pid)) u (pid)
        where not w.granted
            and w.database = (select d.oid from pg_database d where d.datname = current_database())
            and n.nspname in ('tocsin', 'tocsin_queue')
        group by u.pid
        union all
        -- the leader's row, held by a transaction that is open for long
        select l.pid, 'the election of a leader'
        from pg_locks l
        join pg_stat_activity t on t.pid = l.pid
        where l.relation = 'tocsin.leader'::regclass
            and l.granted
            and l.mode in ('RowShareLock', 'RowExclusiveLock', 'ShareLock', 'ExclusiveLock', 'AccessExclusiveLock')
            and coalesce(t.xact_start, '-infinity') < clock_timestamp() - interval '3 seconds'
    ) b
    join pg_stat_activity a on a.pid = b.pid
    where a.pid <> pg_backend_pid()
$$;
