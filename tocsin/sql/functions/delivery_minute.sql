-- The ledger by the minute, for the operations page: each part of the ledger is counted once, and charts read the counts
-- (docs/adr/0018-operations-page.md).

-- Classes of latency, four for each doubling from a millisecond on: class n is up to 2^(n/4) ms.
create or replace function tocsin.latency_class(_took interval) returns smallint
language sql immutable
as $$
    -- in floating point: numeric takes thirty times as long
    select greatest(0, ceil(4 * ln(greatest(extract(epoch from _took)::float8, 0.001) * 1000) / ln(2::float8)))::smallint
$$;

-- Counts of the deliveries that reached a final state between two times; `recent`: since _recent.
--
-- The latency of a sent delivery is from notify() to the provider's response. What was meant to wait has none: digests,
-- badges, types with a delay, people with quiet hours, replays. This is looked up for slow ones only.
create or replace function tocsin.settled_between(_since timestamptz, _until timestamptz, _recent timestamptz)
returns table (minute timestamptz, channel text, state tocsin.delivery_state, reason text, took smallint, recent boolean, n integer)
language sql stable
as $$
    -- first the batches, then their deliveries: else reading the whole ledger may look cheaper
    with batch as materialized (
        select g.settled_at, unnest(g.delivery_ids) as delivery_id
        from tocsin.settled_batch g
        where g.settled_at >= _since
            and g.settled_at < _until
    )
    select
        date_trunc('minute', d.settled_at),
        d.channel,
        d.state,
        coalesce(d.reason, ''),
        case
            when d.state <> 'sent' or d.event_id is null then -1
            when d.settled_at - d.created_at > interval '5 seconds'
                and (
                    exists (
                        select
                        from tocsin.event e
                        join tocsin.event_type t using (event_type)
                        where e.event_id = d.event_id
                            and t.delays ? d.channel
                    )
                    or exists (select from tocsin.quiet_hours q where q.recipient_id = d.recipient_id)
                    -- it waited for a limit
                    or exists (
                        select
                        from tocsin.joined_message j
                        where j.recipient_id = d.recipient_id
                            and j.burst_id = d.burst_id
                    )
                    or exists (select from tocsin.attempt a where a.delivery_id = d.delivery_id and a.attempt = 0)
                )
                then -1
            else tocsin.latency_class(d.settled_at - d.created_at)
        end::smallint as took,
        d.settled_at >= _recent,
        count(*)::integer
    from batch b
    -- one that was replayed since then has another settled_at
    join tocsin.delivery d on d.delivery_id = b.delivery_id and d.settled_at = b.settled_at
    group by 1, 2, 3, 4, 5, 6
$$;

-- Counts of the deliveries that are not in a final state, up to _most on each channel, with the time of the oldest: in event
-- queues, in leases, and with a due time.
create or replace function tocsin.unfinished(_most integer)
returns table (channel text, state tocsin.delivery_state, reason text, n integer, oldest_at timestamptz)
language sql stable
as $$
    select
        c.channel,
        w.state,
        coalesce(w.reason, ''),
        count(*)::integer,
        min(w.created_at)
    from tocsin.channel c
    cross join lateral (
        (
            select d.state, d.reason, d.created_at
            from tocsin.delivery d
            where d.channel = c.channel
                and d.due_at is not null
            order by d.due_at
            limit _most
        )
        union all
        (
            select d.state, d.reason, d.created_at
            from tocsin.lease l
            cross join lateral unnest(l.delivery_ids) u (delivery_id)
            join tocsin.delivery d using (delivery_id)
            where l.channel = c.channel
                and tocsin.is_held(d, l.claim)
            limit _most
        )
        union all
        (
            select 'queued', null, d.created_at
            from tocsin.event_queue l
            cross join lateral (
                -- an event queue is emptied from its start: what waits is at its end
                select d.delivery_id, d.state, d.due_at, d.created_at
                from tocsin.delivery d
                where d.event_id = l.event_id
                    and d.channel = l.channel
                order by d.delivery_id desc
                limit _most
            ) d
            where l.channel = c.channel
                and d.delivery_id > l.dispatched_up_to
                and d.state = 'queued'
                and d.due_at is null
            limit _most
        )
    ) w
    where c.task is not null
    group by 1, 2, 3
$$;

-- Counts the minutes that are over at _now, an hour of them at most, and deletes counts older than two days. Returns up to
-- when minutes are counted; null while another process does it. What is committed more than five seconds after it was
-- settled (a cancel() in a long transaction of an app) is not counted.
create or replace function tocsin.count_minutes(_now timestamptz, _most integer) returns timestamptz
language plpgsql
as $$
declare
    _mark timestamptz;
    _since timestamptz;
    _upto timestamptz := date_trunc('minute', _now - interval '5 seconds');
begin
    select m.upto
    into _mark
    from tocsin.delivery_minute_progress m
    for update skip locked;
    if not found then
        return null;
    end if;
    if _mark >= _upto then
        return _mark;
    end if;
    _since := greatest(_mark, _upto - interval '1 day');
    _upto := least(_upto, _since + interval '1 hour');
    insert into tocsin.delivery_minute (minute, channel, state, reason, took, n)
    select e.minute, e.channel, e.state, e.reason, e.took, e.n
    from tocsin.settled_between(_since, _upto, _upto) e
    on conflict do nothing;
    if _upto > _now - interval '2 minutes' then
        insert into tocsin.delivery_minute (minute, channel, state, reason, took, n)
        -- a row also where nothing waits, so that 0 is known
        select _upto - interval '1 minute', c.channel, coalesce(u.state, 'queued'), coalesce(u.reason, ''), -1, coalesce(u.n, 0)
        from tocsin.channel c
        left join tocsin.unfinished(_most) u using (channel)
        where c.task is not null
        on conflict do nothing;
    end if;
    update tocsin.delivery_minute_progress m
    set upto = _upto;
    delete from tocsin.delivery_minute m
    where m.minute < _now - interval '2 days';
    delete from tocsin.process p
    where p.reported_at < _now - interval '1 hour';
    return _upto;
end
$$;
