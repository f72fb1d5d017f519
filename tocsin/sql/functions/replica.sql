-- What a standby has replayed, as a snapshot of the primary (docs/adr/0089-reads-from-a-standby.md).
--
-- On a standby pg_current_snapshot() leaves out which transactions are still running: it names transactions as visible that no
-- statement there sees yet. So those are looked up one by one, from a position of the primary on that the standby has replayed.

-- Returns the snapshot that every later statement on this standby covers at least, and up to where it has replayed. Both are null
-- on a server that is no standby, and while none of these positions of the primary, each with its place in the WAL, is replayed.
create or replace function tocsin.standby_position(_snapshots pg_snapshot[], _places pg_lsn[], out snapshot text, out replayed pg_lsn)
language plpgsql
as $$
declare
    _base pg_snapshot;
    _end bigint;
    _running bigint[];
begin
    if not pg_is_in_recovery() then
        return;
    end if;
    select p.snapshot
    into _base
    from unnest(_snapshots, _places) p (snapshot, place)
    where p.place <= pg_last_wal_replay_lsn()
    order by p.place desc
    limit 1;
    if not found then
        return;
    end if;
    _end := greatest(pg_snapshot_xmax(_base), pg_snapshot_xmax(pg_current_snapshot()))::text::bigint;
    _running := array(
        select r.xid
        from (
            select x::text::bigint
            from pg_snapshot_xip(_base) x
            union all
            select generate_series(pg_snapshot_xmax(_base)::text::bigint, _end - 1)
        ) r (xid)
        where pg_xact_status(r.xid::text::xid8) = 'in progress'
        order by r.xid
    );
    snapshot := format('%s:%s:%s', coalesce(_running[1], _end), _end, array_to_string(_running, ','));
    -- the last step: all that is not running is replayed by now
    replayed := pg_last_wal_replay_lsn();
end
$$;
