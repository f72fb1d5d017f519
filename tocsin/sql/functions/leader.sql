-- The leader: one process listens and dispatches for all.
--
-- It is elected by a row, which only roles of the service may write. An advisory lock would do the same, but any login may
-- take one. The row names the database session that the leader listens with. A leader is gone when that session is gone, or
-- when it has not written its heartbeat for some seconds.
--
-- The row also shows when the database was away: each process records every few seconds that it reached the database.

-- If no process reached the database for longer than this, the database was away.
create or replace function tocsin.outage_after() returns interval
language sql immutable
as $$
    select interval '8 seconds'
$$;

-- After an outage, the claims of a process that has not reported since are kept for this long; then it is taken as dead.
create or replace function tocsin.outage_grace() returns interval
language sql immutable
as $$
    select interval '60 seconds'
$$;

-- Records that a process reached the database at this time, and the end of an outage where no process did before. Does not
-- wait for the row, which may be held by a process that records the same, or by a blocking session.
create or replace function tocsin.record_reachable(_now timestamptz) returns void
language sql
as $$
    update tocsin.leader l
    set reached_at = _now,
        outage_ended_at = case
            when f.reached_at > '-infinity' and (
                f.reached_at < _now - tocsin.outage_after()
                -- several short outages may follow one another
                or f.reached_at < pg_postmaster_start_time()
                -- the clock was set back
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

-- Whether a session still exists. Its start is hidden from roles that may not see it; then the process id has to be enough.
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

-- Makes this session the leader where there is none, or where the leader was silent for too long; the session of that one is
-- then ended, as far as this role may. Returns true for the new leader.
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
    -- again, now that no other session can change it
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
            null; -- its next heartbeat shows it that it no longer leads
        end;
    end if;
    return true;
end
$$;

-- Writes the leader's heartbeat. Returns false where another session leads. While another session holds the row no heartbeat
-- is written, and the leader goes on.
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

-- Writes a process's report in place of its earlier one. After a time without one (the database was away; a crash of the
-- server empties the table) it also renews the leases of this process: nobody ends them before (tocsin.end_leases). Returns how
-- many `serve` reported within _silent_after.
create or replace function tocsin.report_process(
    _process_id uuid,
    _kind text,
    _host text,
    _pid integer,
    _version text,
    _started_at timestamptz,
    _report jsonb,
    _lease interval,
    _silent_after interval,
    out serving integer
)
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
    select count(*) into serving
    from tocsin.process p
    where p.kind = 'serve'
        and p.reported_at > _now - _silent_after;
end
$$;

-- Sessions of others that block the service: what each blocks, and since when. An operator may end them. Address and times are
-- null where PostgreSQL hides them, for roles that this one is no member of.
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
        -- only the leader holds it in this mode: otherwise each commit has to send its own wake-up, which costs speed
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
        -- those that a session of the service waits for, by locks on its tables
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

-- What was committed since an earlier snapshot (null: everything that is there): the people whose badge or inbox changed, and
-- the event queues that were added. `changed` are those of the people whose inbox changed by themselves, or by an app's cancel;
-- not by a mark as seen, which leaves the badge of a phone as it is. With _announce, these people are announced at once, which
-- saves a round trip for each badge; without it a transaction announced them itself, and `waiting` is how many commits wait for
-- one another just now. With _start_idle, the leader becomes `idle` if it can: the next scan is then the last one that
-- announces (wake.sql).
create or replace function tocsin.scan(
    _since pg_snapshot,
    _announce boolean,
    _start_idle boolean default false,
    out snapshot text,
    out recipients text[],
    out changed text[],
    out event_ids bigint[],
    out channels text[],
    out priorities smallint[],
    out idle boolean,
    out waiting integer
)
language plpgsql
as $$
begin
    with before as (
        select
            coalesce(pg_snapshot_xmax(_since), '0'::xid8) as next,
            array(select pg_snapshot_xip(_since)) as open
    ),
    changed as (
        select c.recipient_id, c.change from tocsin.inbox_change c, before b where c.xid >= b.next
        union all
        select c.recipient_id, c.change from tocsin.inbox_change c, before b where c.xid = any (b.open)
    ),
    moved as (
        select d.recipient_id from tocsin.unread_delta d, before b where d.n <> 0 and d.xid >= b.next
        union
        select d.recipient_id from tocsin.unread_delta d, before b where d.n <> 0 and d.xid = any (b.open)
        union
        select c.recipient_id from changed c
    ),
    queue as (
        select q.event_id, q.channel, q.priority from tocsin.event_queue q, before b where q.xid >= b.next
        union
        select q.event_id, q.channel, q.priority from tocsin.event_queue q, before b where q.xid = any (b.open)
    )
    select
        pg_current_snapshot()::text,
        array(select m.recipient_id from moved m),
        array(select c.recipient_id from changed c where c.change <> 'seen'),
        coalesce((select array_agg(q.event_id order by q.event_id) from queue q), '{}'),
        coalesce((select array_agg(q.channel order by q.event_id) from queue q), '{}'),
        coalesce((select array_agg(q.priority order by q.event_id) from queue q), '{}')
    into snapshot, recipients, changed, event_ids, channels, priorities;
    if _announce and recipients <> '{}' then
        perform tocsin.announce(recipients);
    end if;
    idle := _start_idle and tocsin.start_idle();
    waiting := case when not _announce then tocsin.commits_waiting() end;
end
$$;
