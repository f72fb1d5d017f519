-- The bell: how a commit is noticed within a millisecond without a NOTIFY in each app's transaction.
--
-- PostgreSQL takes one global lock over commits that NOTIFY, which costs three quarters of the throughput. So a
-- transaction rings only when the elected listener sleeps, and the listener says that it sleeps by holding the bell's
-- advisory lock exclusively. While a transaction holds it shared the listener can't fall asleep, so no commit is missed.
-- docs/adr/0004-bell.md has the alternatives that were measured.

create or replace function tocsin.ring() returns void
language plpgsql
as $$
begin
    if tocsin.listener_sleeps() then
        perform pg_notify('tocsin_bell', '');
    end if;
end
$$;

-- False keeps it awake until this transaction is over.
create or replace function tocsin.listener_sleeps() returns boolean
language sql
as $$
    -- 0x746f6373 is 'tocs' in ASCII: the two-key space keeps clear of an app's own advisory locks
    select not pg_try_advisory_xact_lock_shared(1953457011, 1)
$$;

-- The listener falls asleep. A last scan has to follow in a statement of its own: its snapshot must be younger than the lock.
create or replace function tocsin.arm_bell() returns boolean
language sql
as $$
    select pg_try_advisory_lock(1953457011, 1)
$$;

create or replace function tocsin.disarm_bell() returns boolean
language sql
as $$
    select pg_advisory_unlock(1953457011, 1)
$$;

-- One listener at a time: held by its session, so that it falls free with the connection.
create or replace function tocsin.try_lead() returns boolean
language sql
as $$
    select pg_try_advisory_lock(1953457011, 2)
$$;

-- A listener that hangs (SIGSTOP, a frozen machine) while it holds the lock would stop everybody: it queries at least
-- every 5 s, so one that was silent for longer is disconnected and another one takes over.
create or replace function tocsin.depose_silent_leader(_silent_for interval) returns boolean
language sql
as $$
    select coalesce(bool_or(pg_terminate_backend(a.pid)), false)
    from pg_locks l
    join pg_stat_activity a using (pid)
    where l.locktype = 'advisory'
        and l.classid = 1953457011
        and l.objid = 2
        and l.objsubid = 2
        and l.granted
        and l.database = (select oid from pg_database where datname = current_database())
        -- a long statement is work, not silence
        and a.state = 'idle'
        and a.state_change < clock_timestamp() - _silent_for
$$;
