-- name: try_lead
-- True for the one that listens and dispatches for all; a leader that was silent for too long is replaced.
select tocsin.try_lead(:silent_for);

-- name: record_heartbeat
-- The leader is alive; false where another session leads.
select tocsin.record_heartbeat();

-- name: has_leader
-- Whether a leader wrote its beat lately.
select l.heartbeat_at > clock_timestamp() - :within
from tocsin.leader l;

-- name: listen#
-- Hears the bell.
listen tocsin_wake;

-- name: measure_commit_wait#
-- Seconds that commits which ring wait for their turn just now.
call tocsin.measure_commit_wait('{}');

-- name: start_idle
-- Asks to be rung from now on; false while a transaction that did not ring is still open.
select tocsin.start_idle();

-- name: stop_idle
-- Awake: nobody needs to ring.
select tocsin.stop_idle();

-- name: configure_planner
-- Few rows among many dead ones are what is looked for: an index, always. One transaction setting each session.
select
    set_config('enable_seqscan', 'off', false),
    set_config('enable_bitmapscan', 'off', false),
    set_config('jit', 'off', false);

-- name: scan
-- What was committed since an earlier snapshot (null: all that is there): whose inbox moved, who moved it themselves
-- (or an app's cancel did), and which event queues came. Whose inbox moved is announced at once where nobody else did (:announce):
-- a round trip less for each badge.
with before as (
    select
        coalesce(pg_snapshot_xmax(:since::pg_snapshot), '0'::xid8) as next,
        array(select pg_snapshot_xip(:since::pg_snapshot)) as open
),
changed as (
    select c.recipient_id from tocsin.inbox_change c, before b where c.xid >= b.next
    union all
    select c.recipient_id from tocsin.inbox_change c, before b where c.xid = any (b.open)
),
moved as (
    select d.recipient_id from tocsin.unread_delta d, before b where d.n <> 0 and d.xid >= b.next
    union
    select d.recipient_id from tocsin.unread_delta d, before b where d.n <> 0 and d.xid = any (b.open)
    union
    select c.recipient_id from changed c
),
came as (
    select l.event_id, l.channel, l.priority from tocsin.event_queue l, before b where l.xid >= b.next
    union
    select l.event_id, l.channel, l.priority from tocsin.event_queue l, before b where l.xid = any (b.open)
)
select
    pg_current_snapshot()::text as snapshot,
    p.recipients,
    case when :announce and p.recipients <> '{}' then tocsin.announce(p.recipients)::text end as announced,
    array(select c.recipient_id from changed c) as changed,
    coalesce((select array_agg(c.event_id order by c.event_id) from came c), '{}') as event_ids,
    coalesce((select array_agg(c.channel order by c.event_id) from came c), '{}') as channels,
    coalesce((select array_agg(c.priority order by c.event_id) from came c), '{}') as priorities
from (select array(select m.recipient_id from moved m) as recipients offset 0) p;

-- name: assignable_since
-- Addresses with something for their claimant that was committed since an earlier snapshot (null: ever).
select
    pg_current_snapshot()::text as snapshot,
    tocsin.assignable_since(:since::pg_snapshot) as addresses;

-- name: assign_invitations
-- Gives what waits for these addresses to their claimants.
select
    h.assigned,
    h.busy
from tocsin.assign_invitations(:addresses::text[]) h;

-- name: announce_everyone
-- Has the HTTP processes read all their streams anew.
select pg_notify('tocsin_badge', '*');

-- name: fold_unread
-- Folds the announced changes into the counters; what the fold before had seen the end of is gone.
select tocsin.fold_unread(:announced::pg_snapshot, :folded::pg_snapshot);

-- name: changed_since_badge_pushes
-- Who changed their inbox since a leader last asked for pushes that correct badges.
with before as (
    select
        pg_snapshot_xmax(m.snapshot) as next,
        array(select pg_snapshot_xip(m.snapshot)) as open
    from tocsin.badge_push_progress m
)
select array(
    select c.recipient_id from tocsin.inbox_change c, before b where c.xid >= b.next
    union
    select c.recipient_id from tocsin.inbox_change c, before b where c.xid = any (b.open)
);

-- name: queue_badge_pushes
-- Asks for the silent pushes that correct the badges of these people, and marks how far all have been asked for.
select tocsin.queue_badge_pushes(:recipients, :window, :life, :seen::pg_snapshot);

-- name: may_vacuum
-- Whether this session's role may vacuum the small tables: as a member of their owner's role, or by MAINTAIN.
select
    case
        when pg_has_role(c.relowner, 'USAGE') then true
        -- not known to PostgreSQL before 17
        when current_setting('server_version_num')::int >= 170000 then has_table_privilege(c.oid, 'MAINTAIN')
        else false
    end
from pg_class c
where c.oid = 'tocsin.unread_delta'::regclass;

-- name: vacuum_unread#
-- The small tables turn over every second; autovacuum's minute is too slow for them.
vacuum (index_cleanup on, truncate off) tocsin.unread_delta;

-- name: vacuum_event_queues#
-- The same for the event queues.
vacuum (index_cleanup on, truncate off) tocsin.event_queue;

-- name: vacuum_leases#
-- The same for the leases.
vacuum (index_cleanup on, truncate off) tocsin.lease;

-- name: forget_inbox_changes!
-- A stream that was away for longer reads its list anew.
delete from tocsin.inbox_change c
where c.at < clock_timestamp() - interval '1 hour';

-- name: delete_settled_batches!
-- Minutes that were counted, and those of before yesterday that nobody counts.
delete from tocsin.settled_batch g
where g.settled_at < greatest(
    (select m.upto - interval '10 minutes' from tocsin.delivery_minute_progress m),
    clock_timestamp() - interval '25 hours'
);

-- name: finish_erasures
-- What came back of people who were erased.
select tocsin.finish_erasures();

-- name: jobs_at_work
-- Jobs of a channel that wait or that live workers have.
select tocsin.jobs_at_work(:channel, :alive_within);

-- name: dispatch_event_queues
-- The next turn of some event queues of one channel and priority.
select t.event_id, t.last, t.taken
from tocsin.dispatch_event_queues(:channel, :priority, :event_ids, :after, :each, :lease) t;

-- name: dispatch_due
-- What is due again on a channel.
select tocsin.dispatch_due(:channel, :room, :lease);

-- name: end_leases
-- Leases that ran out: what they hold is due, unless the database was away and their holder may live.
select tocsin.end_leases(:most);

-- name: fan_out_due_events
-- Scheduled events whose time has come.
select tocsin.fan_out_due_events(:limit);

-- name: next_due
-- Seconds until something falls due, per channel ('' for scheduled events, '*' for leases); less than 0 for what is late.
select
    c.channel,
    extract(epoch from n.due_at - clock_timestamp())::float8 as seconds
from tocsin.channel c
cross join lateral (
    select min(d.due_at) as due_at
    from tocsin.delivery d
    where d.channel = c.channel
        and d.due_at is not null
) n
where c.task is not null
    and n.due_at is not null
union all
select
    '',
    extract(epoch from n.send_at - clock_timestamp())::float8
from (
    select min(e.send_at) as send_at
    from tocsin.event e
    where e.fanned_out_at is null
        and e.cancelled_at is null
) n
where n.send_at is not null
union all
select
    '*',
    extract(epoch from n.until - clock_timestamp())::float8
from (
    select min(l.until) as until
    from tocsin.lease l
) n
where n.until is not null;

-- name: reset_foreign_xids
-- A database that was restored into another cluster.
select tocsin.reset_foreign_xids();
