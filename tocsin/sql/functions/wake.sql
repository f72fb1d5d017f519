-- The wake-up signal: how the leader learns of a commit within a millisecond without a NOTIFY in each app's transaction.
--
-- PostgreSQL takes one global lock for commits with a NOTIFY, which costs three quarters of the throughput. So a transaction
-- sends one only while the leader is idle, and the leader shows that it is idle by holding an advisory lock exclusively.
-- While a transaction holds the lock shared the leader can't become idle, so no commit is missed. A transaction that wakes
-- the leader also announces to the HTTP processes whose badge it changed (_moved), which is faster than by the leader; the
-- leader announces what is committed while it is awake.
-- docs/adr/0084-who-announces-a-badge.md has the rule for when the leader is idle, 0004 and 0026 the alternatives that were
-- measured.

create or replace function tocsin.wake(_moved text[] default '{}') returns void
language plpgsql
as $$
begin
    if tocsin.leader_is_idle() then
        perform tocsin.announce(_moved);
        perform pg_notify('tocsin_wake', '');
    end if;
end
$$;

-- Notifies the HTTP processes whose streams have to read again: ids only, since any session may listen; '*' for very many
-- people. A payload must be shorter than 8,000 bytes, and an id has at most 200 characters.
create or replace function tocsin.announce(_moved text[]) returns void
language plpgsql
as $$
declare
    _payload text := case when cardinality(_moved) > 5000 then '*' when cardinality(_moved) > 0 then to_json(_moved)::text end;
begin
    if octet_length(_payload) < 8000 then
        perform pg_notify('tocsin_badge', _payload);
    elsif _payload is not null then
        perform pg_notify('tocsin_badge', json_agg(p.id)::text)
        from (
            select u.id, sum(octet_length(to_json(u.id)::text) + 2) over (order by u.position) / 6000 as part
            from unnest(_moved) with ordinality u (id, position)
        ) p
        group by p.part;
    end if;
end
$$;

-- Whether the leader is idle. False also keeps it awake until this transaction is over.
create or replace function tocsin.leader_is_idle() returns boolean
language sql
as $$
    -- 0x746f6373 is 'tocs' in ASCII: the two-key space keeps clear of an app's own advisory locks
    select not pg_try_advisory_xact_lock_shared(1953457011, 1)
$$;

-- The leader becomes idle. A last scan has to follow in a statement of its own: its snapshot must be younger than the lock.
-- Returns false while a transaction is open that did not send a wake-up.
create or replace function tocsin.start_idle() returns boolean
language sql
as $$
    select pg_try_advisory_lock(1953457011, 1)
$$;

-- How many commits wait just now because another one that sends a NOTIFY goes before them: PostgreSQL lets them commit one by
-- one, by a lock on "database 0" (PreCommit_Notify in its async.c).
create or replace function tocsin.commits_waiting() returns integer
language sql
as $$
    select count(*)::integer
    from pg_lock_status() l
    where not l.granted
        and l.locktype = 'object'
        and l.database = 0
        and l.classid = 'pg_catalog.pg_database'::regclass
        and l.objid = 0
$$;

create or replace function tocsin.stop_idle() returns boolean
language sql
as $$
    select pg_advisory_unlock(1953457011, 1)
$$;
