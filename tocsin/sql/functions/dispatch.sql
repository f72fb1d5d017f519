-- Dispatch: deliveries that are due become Procrastinate jobs of up to 500.
--
-- A job is only a hint; the ledger decides what is sent. Deliveries with a job, or claimed by a worker, are in a lease, and due again
-- when it runs out: so a lost job, a dead worker's claim, a retry and a scheduled delivery are handled in the same way.

-- Makes one Procrastinate job for each 500 deliveries, with a lease; nothing else writes to Procrastinate's tables.
create or replace function tocsin.defer_jobs(_channel text, _priority smallint, _delivery_ids bigint[], _lease interval)
returns integer
language sql
as $$
    insert into tocsin.lease (channel, delivery_ids, until)
    select _channel, _delivery_ids[i:i + 499], clock_timestamp() + _lease
    from generate_series(1, cardinality(_delivery_ids), 500) i;
    select cardinality(tocsin_queue.procrastinate_defer_jobs_v1(array_agg(
        row(
            _channel, c.task, _priority, null, null,
            jsonb_build_object('delivery_ids', _delivery_ids[i:i + 499]), null
        )::tocsin_queue.procrastinate_job_to_defer_v1
    )))
    from generate_series(1, cardinality(_delivery_ids), 500) i
    cross join tocsin.channel c
    where c.channel = _channel
    having count(*) > 0
$$;

-- How many jobs of a channel wait or are run by a live worker. Those of a dead worker don't count, so that they don't block
-- the channel.
create or replace function tocsin.jobs_at_work(_channel text, _alive_within interval) returns integer
language sql stable
as $$
    select (
        (
            select count(*)
            from tocsin_queue.procrastinate_jobs j
            where j.status = 'todo'
                and j.queue_name = _channel
        ) + (
            select count(*)
            from tocsin_queue.procrastinate_jobs j
            join tocsin_queue.procrastinate_workers w on w.id = j.worker_id
            where j.status = 'doing'
                and j.queue_name = _channel
                and w.last_heartbeat > clock_timestamp() - _alive_within
        )
    )::integer
$$;

-- Makes jobs of the next deliveries of each event queue, up to _each of every event, after the last one with a job. `last` is
-- null when the queue is empty (its row is then deleted). A queue whose event is locked by an open cancel() is not in the
-- result and comes later. All queues of a call have one channel and priority.
create or replace function tocsin.dispatch_event_queues(
    _channel text,
    _priority smallint,
    _event_ids bigint[],
    _after bigint[],
    _each integer,
    _lease interval
) returns table (event_id bigint, last bigint, taken integer)
language plpgsql
as $$
#variable_conflict use_column
declare
    _free bigint[];
    _ids bigint[];
    _events bigint[];
begin
    _free := array(
        select e.event_id
        from tocsin.event e
        where e.event_id = any (_event_ids)
        for share skip locked
    );
    -- an event that was erased has nothing left to dispatch
    _free := _free || array(
        select w.event_id
        from unnest(_event_ids) w (event_id)
        where not exists (select from tocsin.event e where e.event_id = w.event_id)
    );
    -- in turn, so that the first deliveries of each event are at the start of a job of several events
    select array_agg(d.delivery_id order by d.turn, d.event_id), array_agg(d.event_id order by d.turn, d.event_id)
    into _ids, _events
    from unnest(_event_ids, _after) l (event_id, after)
    cross join lateral (
        -- an earlier leader may have gone further
        select max(k.dispatched_up_to) as dispatched_up_to
        from tocsin.event_queue k
        where k.event_id = l.event_id
            and k.channel = _channel
    ) k
    cross join lateral (
        select d.delivery_id, d.event_id, row_number() over (order by d.delivery_id) as turn
        from tocsin.delivery d
        where d.event_id = l.event_id
            and d.channel = _channel
            and d.delivery_id > greatest(l.after, k.dispatched_up_to)
            and d.state = 'queued'
            and d.due_at is null
        order by d.delivery_id
        limit _each
    ) d
    where l.event_id = any (_free);
    perform tocsin.defer_jobs(_channel, _priority, _ids, _lease);
    return query
        with turn as (
            select u.event_id, max(u.delivery_id) as last, count(*)::integer as taken
            from unnest(_ids, _events) u (delivery_id, event_id)
            group by u.event_id
        ),
        emptied as (
            delete from tocsin.event_queue l
            using unnest(_free) w (event_id)
            left join turn t using (event_id)
            where l.event_id = w.event_id
                and l.channel = _channel
                and coalesce(t.taken, 0) < _each
        ),
        shortened as (
            update tocsin.event_queue l
            set dispatched_up_to = t.last
            from turn t
            where l.event_id = t.event_id
                and l.channel = _channel
                and t.taken = _each
        )
        select w.event_id, case when t.taken = _each then t.last end, coalesce(t.taken, 0)
        from unnest(_free) w (event_id)
        left join turn t using (event_id);
end
$$;

-- Ends leases that ran out: what they still hold is due now. One that is locked (by an open cancel()) is tried again a little
-- later. Returns how many ran out.
--
-- While the database was away nobody could renew a lease, and a live worker may know that its mails were sent. So the claims
-- of a process that has not reported since the outage are kept for a while; its report renews them. The time is read before
-- the row: if the server stands still in between, the time is old and no lease ends too early.
create or replace function tocsin.end_leases(_most integer) returns integer
language plpgsql
as $$
declare
    _now timestamptz := clock_timestamp();
    _outage_ended_at timestamptz;
    _over bigint[];
    _held bigint[];
begin
    select l.outage_ended_at into _outage_ended_at
    from tocsin.leader l
    where l.reached_at >= greatest(_now - tocsin.outage_after(), pg_postmaster_start_time());
    if not found then
        return 0; -- the process that records reaching the database records the outage first
    end if;
    _over := array(
        select l.lease_id
        from tocsin.lease l
        where l.until <= _now
            and (
                l.process_id is null
                or _outage_ended_at < _now - tocsin.outage_grace()
                or exists (
                    select
                    from tocsin.process p
                    where p.process_id = l.process_id
                        and p.reported_at > _outage_ended_at
                )
            )
        order by l.until
        limit _most
        for update of l skip locked
    );
    _held := array(
        select d.delivery_id
        from tocsin.lease l
        cross join lateral unnest(l.delivery_ids) u (delivery_id)
        join tocsin.delivery d using (delivery_id)
        where l.lease_id = any (_over)
            and tocsin.is_held(d, l.claim)
        for update of d skip locked
    );
    update tocsin.delivery d
    set due_at = _now
    where d.delivery_id = any (_held);
    delete from tocsin.lease l
    where l.lease_id = any (_over)
        and not exists (
            select
            from unnest(l.delivery_ids) u (delivery_id)
            join tocsin.delivery d using (delivery_id)
            where tocsin.is_held(d, l.claim)
        );
    update tocsin.lease l
    set until = _now + interval '1 second'
    where l.lease_id = any (_over);
    return cardinality(_over);
end
$$;

-- Whether a lease still holds a delivery: that of a job until the delivery is claimed, that of a claim until it is settled.
create or replace function tocsin.is_held(_delivery tocsin.delivery, _claim uuid) returns boolean
language sql immutable
as $$
    select (_delivery).due_at is null
        and (_delivery).claim is not distinct from _claim
        and (_delivery).state
            = case when _claim is null then 'queued'::tocsin.delivery_state else 'sending'::tocsin.delivery_state end
$$;

-- The id before the deliveries of the last days, of which one may be lost: as long as any may be sent, and a day more. 0 where there
-- is no such event.
create or replace function tocsin.first_maybe_lost(_now timestamptz) returns bigint
language sql stable
as $$
    select coalesce(
        (
            select d.delivery_id - 1
            from tocsin.event e
            cross join lateral (
                select min(d.delivery_id) as delivery_id
                from tocsin.delivery d
                where d.event_id = e.event_id
            ) d
            where e.created_at >= _now - (
                    select greatest(interval '7 days', max(t.time_to_live)) + interval '1 day'
                    from tocsin.event_type t
                )
                -- the deliveries of a scheduled event have later ids
                and e.send_at is null
                and d.delivery_id is not null
            order by e.created_at, e.event_id
            limit 1
        ),
        0
    )
$$;

-- Of one page of deliveries by id, after the id _after: those without an event queue, a due time and a lease are due now. There are
-- none unless a lease was deleted by hand. Returns the page's last id, null where there are no later ones.
create or replace function tocsin.requeue_lost(_after bigint, _now timestamptz, _limit integer) returns bigint
language plpgsql
as $$
declare
    _last bigint;
    _count integer;
begin
    select max(p.delivery_id), count(*)
    into _last, _count
    from (
        select d.delivery_id
        from tocsin.delivery d
        where d.delivery_id > _after
        order by d.delivery_id
        limit _limit
    ) p;
    with lost as (
        select d.delivery_id
        from tocsin.delivery d
        where d.delivery_id > _after
            and d.delivery_id <= _last
            and d.settled_at is null
            and d.due_at is null
            and not exists (
                select
                from (select unnest(l.delivery_ids) as delivery_id from tocsin.lease l) u
                where u.delivery_id = d.delivery_id
            )
            and not exists (
                select
                from tocsin.event_queue k
                where k.event_id = d.event_id
                    and k.channel = d.channel
                    and k.dispatched_up_to < d.delivery_id
            )
        for update skip locked
    )
    update tocsin.delivery d
    set due_at = _now
    from lost o
    where d.delivery_id = o.delivery_id;
    return case when _count = _limit then _last end;
end
$$;

-- Dispatches what is due again: retries, lost jobs, claims whose lease ran out. Settles what can't be tried any more, and
-- makes a job of the rest for each priority. Returns how many were due.
create or replace function tocsin.dispatch_due(_channel text, _room integer, _lease interval) returns integer
language plpgsql
as $$
declare
    _now timestamptz := clock_timestamp();
    _count integer;
    _ids bigint[];
    _priorities smallint[];
    _priority smallint;
    _batch bigint[];
begin
    with first as (
        select d.delivery_id, d.burst_id
        from tocsin.delivery d
        where d.channel = _channel
            and d.due_at <= _now
        order by d.due_at
        limit _room
        for update skip locked
    ),
    -- what goes as one message is dispatched as a whole
    same_burst as (
        select d.delivery_id
        from tocsin.delivery d
        where d.burst_id = any (array(select distinct f.burst_id from first f where f.burst_id is not null))
            and d.due_at is not null
            -- looked up in a hash of these
            and d.delivery_id not in (select f.delivery_id from first f)
        for update skip locked
    ),
    due as (
        select f.delivery_id from first f
        union all
        select b.delivery_id from same_burst b
    ),
    judged as materialized (
        select
            d.delivery_id,
            d.attempts,
            d.state = 'sending' as abandoned,
            -- digests and badges come after mails and pushes
            coalesce(t.priority, 0::smallint) as priority,
            tocsin.cancel_reason(e) as cancel_reason,
            case
                -- what an app webhook is sent about an event outlives it
                when e.cancelled_at is not null and not tocsin.is_for_app(d) then 'cancelled'
                when coalesce(d.expires_at, e.expires_at) <= _now then 'expired'
                when d.attempts >= tocsin.most_attempts(d, t.max_attempts) then 'failed'
                else 'queued'
            end::tocsin.delivery_state as state
        from due
        join tocsin.delivery d using (delivery_id)
        left join tocsin.event e using (event_id)
        left join tocsin.event_type t using (event_type)
    ),
    abandoned as (
        insert into tocsin.attempt (delivery_id, attempt, at, outcome, reason)
        select j.delivery_id, j.attempts, _now, 'unknown', 'worker_lost'
        from judged j
        where j.abandoned
        on conflict do nothing
    ),
    moved as (
        -- states: queued | sending | deferred -> queued | failed | cancelled | expired
        update tocsin.delivery d
        set state = j.state,
            claim = null,
            due_at = null,
            settled_at = case when j.state <> 'queued' then _now end,
            failed_at = case when j.state = 'failed' then _now end,
            reason = case j.state
                when 'cancelled' then j.cancel_reason
                when 'expired' then 'expired'
                when 'failed' then 'attempts_exhausted'
                else case when j.abandoned then 'worker_lost' else d.reason end
            end
        from judged j
        where d.delivery_id = j.delivery_id
        returning d.delivery_id, d.burst_id, d.state, j.priority
    ),
    -- the first of a burst takes the others along; they have a lease of their own until it does
    queued as (
        select
            m.delivery_id,
            m.priority,
            m.burst_id is not null
                and row_number() over (partition by m.burst_id order by m.delivery_id = m.burst_id desc, m.delivery_id) > 1
                as taken_along
        from moved m
        where m.state = 'queued'
    ),
    leased as (
        insert into tocsin.lease (channel, delivery_ids, until)
        select _channel, array_agg(q.delivery_id), clock_timestamp() + _lease
        from queued q
        where q.taken_along
        having count(*) > 0
    ),
    settled as (
        insert into tocsin.settled_batch (settled_at, delivery_ids)
        select _now, array_agg(m.delivery_id)
        from moved m
        where m.state <> 'queued'
        having count(*) > 0
    )
    select
        (select count(*) from moved),
        array_agg(q.delivery_id),
        array_agg(q.priority)
    into _count, _ids, _priorities
    from queued q
    where not q.taken_along;
    for _priority, _batch in
        select u.priority, array_agg(u.delivery_id)
        from unnest(_ids, _priorities) u (delivery_id, priority)
        group by u.priority
    loop
        perform tocsin.defer_jobs(_channel, _priority, _batch, _lease);
    end loop;
    return _count;
end
$$;
