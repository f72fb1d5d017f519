-- name: try_lead
-- Makes this session the leader, also in place of one that was silent for too long; returns whether it leads.
select tocsin.try_lead(:silent_for);

-- name: record_heartbeat
-- Writes the leader's heartbeat; false where another session leads.
select tocsin.record_heartbeat();

-- name: has_leader
-- Whether a leader wrote its heartbeat lately.
select l.heartbeat_at > clock_timestamp() - :within
from tocsin.leader l;

-- name: listen#
-- Listens for the wake-up signal.
listen tocsin_wake;

-- name: stop_idle
-- Is awake: no commit needs to send the wake-up signal.
select tocsin.stop_idle();

-- name: configure_planner
-- Planner settings of the leader's session: it looks for few rows among many dead ones, so by an index always. Each session is
-- set in one transaction.
select
    set_config('enable_seqscan', 'off', false),
    set_config('enable_bitmapscan', 'off', false),
    set_config('jit', 'off', false);

-- name: prepare_scan#
-- What was committed since an earlier snapshot (null: everything that is there), as JSON, which is parsed faster than arrays.
prepare scan (pg_snapshot, boolean, boolean) as
select row_to_json(s)::text
from tocsin.scan($1, $2, $3) s;

-- name: assignable_since
-- Addresses with something to assign that was committed since an earlier snapshot (null: at any time).
select
    pg_current_snapshot()::text as snapshot,
    tocsin.assignable_since(:since::pg_snapshot) as addresses;

-- name: assign_invitations
-- Assigns what is pending for these addresses to the recipients who claimed them.
select
    h.assigned,
    h.busy
from tocsin.assign_invitations(:addresses::text[]) h;

-- name: apply_pending_changes
-- Applies what calls left for after their commit; returns how much is left.
select tocsin.apply_pending_changes()
where exists (select from tocsin.pending_change);

-- name: announce_everyone
-- Has the HTTP processes read for all their streams again.
select pg_notify('tocsin_badge', '*');

-- name: fold_unread
-- Folds the announced changes into the counters; what ended before the fold before is gone.
select tocsin.fold_unread(:announced::pg_snapshot, :folded::pg_snapshot);

-- name: changed_since_badge_pushes
-- People whose inbox changed since a leader last queued pushes that correct badges.
with before as (
    select
        pg_snapshot_xmax(m.snapshot) as next,
        array(select pg_snapshot_xip(m.snapshot)) as open
    from tocsin.badge_push_progress m
)
select array(
    select c.recipient_id from tocsin.inbox_change c, before b where c.xid >= b.next and c.change <> 'seen'
    union
    select c.recipient_id from tocsin.inbox_change c, before b where c.xid = any (b.open) and c.change <> 'seen'
);

-- name: queue_badge_pushes
-- Queues the silent pushes that correct the badges of these people, and records up to which snapshot that is done.
select tocsin.queue_badge_pushes(:recipients, :window, :life, :seen::pg_snapshot);

-- name: may_vacuum
-- Whether this session's role may vacuum the small tables: as a member of their owner's role, or by MAINTAIN.
select
    case
        when pg_has_role(c.relowner, 'USAGE') then true
        -- PostgreSQL before 17 does not have it
        when current_setting('server_version_num')::int >= 170000 then has_table_privilege(c.oid, 'MAINTAIN')
        else false
    end
from pg_class c
where c.oid = 'tocsin.unread_delta'::regclass;

-- name: vacuum_unread#
-- All rows of the small tables change within seconds; autovacuum runs too seldom for them.
vacuum (index_cleanup on, truncate off) tocsin.unread_delta;

-- name: vacuum_event_queues#
-- The same for the event queues.
vacuum (index_cleanup on, truncate off) tocsin.event_queue;

-- name: vacuum_leases#
-- The same for the leases.
vacuum (index_cleanup on, truncate off) tocsin.lease;

-- name: forget_inbox_changes!
-- Deletes changes that a stream could only have missed if it was away for longer: it reads its list again.
delete from tocsin.inbox_change c
where c.at < clock_timestamp() - interval '1 hour';

-- name: delete_settled_batches!
-- Deletes what was counted by minute, and what is too old to be counted.
delete from tocsin.settled_batch g
where g.settled_at < greatest(
    (select m.upto - interval '10 minutes' from tocsin.delivery_minute_progress m),
    clock_timestamp() - interval '25 hours'
);

-- name: finish_erasures
-- Erases what was committed since of people who were erased.
select tocsin.finish_erasures();

-- name: jobs_at_work
-- How many jobs of a channel wait or are run by live workers.
select tocsin.jobs_at_work(:channel, :alive_within);

-- name: dispatch_event_queues
-- Dispatches the next deliveries of some event queues of one channel and priority.
select t.event_id, t.last, t.taken
from tocsin.dispatch_event_queues(:channel, :priority, :event_ids, :after, :each, :lease) t;

-- name: dispatch_due
-- Dispatches what is due again on a channel.
select tocsin.dispatch_due(:channel, :room, :lease);

-- name: end_leases
-- Ends leases that ran out: what they hold is due, unless the database was away and their holder may be alive.
select tocsin.end_leases(:most);

-- name: fan_out_due_events
-- Fans out scheduled events that are due.
select tocsin.fan_out_due_events(:limit);

-- name: advance_fan_outs
-- Writes the next slice of a fan-out that is too large for one transaction.
select a.people, a.running, a.failed, a.error
from tocsin.advance_fan_outs(:slice) a;

-- name: next_due
-- Seconds until something is due, by channel ('' for scheduled events, '*' for leases); negative where it is late.
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
        and not exists (select from tocsin.running_fan_out f where f.event_id = e.event_id)
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
-- Resets transaction ids after a restore into another cluster.
select tocsin.reset_foreign_xids();
