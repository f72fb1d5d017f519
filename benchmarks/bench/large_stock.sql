-- A database after a year of use: `bench.rows` notifications. The person of a notification is one of `rows / 50`, skewed, so that
-- nine of ten rows are of the last 91 days and the others are older and were never read. Three further people have 20,000 each,
-- however many rows there are: h1 and h3 unread, h2 archived. Statements are separated by an empty line. The indexes are
-- built after the rows (large.py).
select setseed(0.42);

insert into tocsin.recipient (recipient_id, email, name, locale)
select 'p' || i, 'p' || i || '@example.com', 'Person ' || i, 'en'
from generate_series(0, current_setting('bench.rows')::integer / 50 - 1) i
union all
select h, h || '@example.com', 'Person ' || h, 'en'
from unnest(array['h1', 'h2', 'h3']) h;

insert into tocsin.device (token, recipient_id, platform, provider)
select md5(r.recipient_id) || md5(r.recipient_id || '2'), r.recipient_id, 'ios', 'apns'
from tocsin.recipient r
where hashtext(r.recipient_id) % 5 in (0, 1);

insert into tocsin.subscription (topic, recipient_id, level, because)
select 'forum.thread:' || abs(hashtext(r.recipient_id)) % (current_setting('bench.rows')::integer / 500), r.recipient_id, 'all', 'followed'
from tocsin.recipient r;

insert into tocsin.preference (recipient_id, scope, channel, enabled)
select r.recipient_id, 'forum.*', 'email', false
from tocsin.recipient r
where hashtext(r.recipient_id) % 20 = 0;

insert into tocsin.digest_preference (recipient_id, frequency, next_at)
select r.recipient_id, 'weekly', now() + interval '1 day' + random() * interval '6 days'
from tocsin.recipient r
where hashtext(r.recipient_id) % 10 = 3;

-- The first tenth is older than 91 days. A fifth is for 16 people, the others for one; one in 200 is an invitation.
insert into tocsin.event (
    event_id, event_type, title, body, action_url, metadata, initiator, caller, subject, email, created_at, fanned_out_at, expires_at
)
select
    i,
    (array['forum.new_reply', 'forum.new_thread', 'bulletin.new_chapter', 'messages.new_dm', 'approval.requested', 'recognition.received', 'event.changed', 'learning.assigned'])[1 + i % 8],
    'New reply in ''Spring Formal Planning'' ' || i,
    'Bob: I would book the old mill by the lake, it has room for ' || i || ' of us and a kitchen of its own.',
    '/forums/' || i % 1000,
    jsonb_build_object('thread', i % 1000),
    case when i % 3 = 0 then 'p' || i % k.people end,
    'role:app',
    case when i % 5 < 3 then 'forum.thread:' || abs(hashint4(i)) % (k.events / 25) end,
    case when i % 200 = 1 and i > k.events / 10 then 'guest' || i || '@example.org' end,
    e.at,
    e.at,
    e.at + interval '3 days'
from (select current_setting('bench.rows')::integer / 4 as events, current_setting('bench.rows')::integer / 50 as people) k
cross join generate_series(1, k.events) i
cross join lateral (
    select now() - case
        when i <= k.events / 10 then interval '400 days' - interval '309 days' * (i / (k.events / 10.0))
        else interval '91 days' * (1 - (i - k.events / 10) / (k.events * 0.9))
    end as at
) e;

select setval('tocsin.event_event_id_seq', (select max(event_id) from tocsin.event));

insert into tocsin.notification (
    event_id, recipient_id, address, event_type, subject, created_at, in_inbox, read_at, archived_at, decisions
)
select
    e.event_id,
    case when e.email is null then 'p' || (e.first + n * 7919) % k.people end,
    e.email,
    e.event_type,
    e.subject,
    e.created_at,
    e.email is null and f.chance >= 0.05,
    case when f.chance between 0.05 and 0.8 and f.read_at < now() then f.read_at end,
    case when f.chance between 0.05 and 0.1 and f.read_at < now() then f.read_at end,
    case e.event_id % 2
        when 0 then '{"in_app": ["on", "default"], "email": ["on", "default"], "push": ["on", "default"]}'::jsonb
        else '{"in_app": ["on", "default"], "email": ["off", "preference", "forum.*"], "push": ["off", "no_device"]}'
    end
from (select current_setting('bench.rows')::integer / 4 as events, current_setting('bench.rows')::integer / 50 as people) k
cross join lateral (
    select e.*, floor(k.people * power(random(), 1.5))::integer as first
    from tocsin.event e
    order by e.event_id
    offset 0
) e
cross join generate_series(1, case when e.event_id % 5 = 0 then 16 else 1 end) n
cross join lateral (
    select
        -- the oldest tenth is unread
        case when e.event_id <= k.events / 10 then 1 else random() end + 0 * n as chance,
        e.created_at + interval '2 days' * power(random(), 3) as read_at
) f;

-- The three with 20,000 are notified of events of the last 91 days.
insert into tocsin.notification (event_id, recipient_id, event_type, subject, created_at, in_inbox, archived_at, decisions)
select e.event_id, h, e.event_type, e.subject, e.created_at, true, case when h = 'h2' then e.created_at + interval '1 hour' end, '{}'
from (select current_setting('bench.rows')::integer / 4 as events) k
cross join generate_series(1, least(20000, k.events * 9 / 10)) i
join tocsin.event e on e.event_id = k.events / 10 + (i * (k.events * 9 / 10)::bigint) / least(20000, k.events * 9 / 10)
cross join unnest(array['h1', 'h2', 'h3']) h;

insert into tocsin.delivery (
    notification_id, event_id, recipient_id, channel, state, reason, attempts, address, checked_at, created_at, settled_at,
    failed_at, due_at, provider_id, device_id
)
select
    n.notification_id,
    n.event_id,
    n.recipient_id,
    c.channel,
    s.state::tocsin.delivery_state,
    case s.state when 'failed' then 'smtp_550_5.1.1' when 'skipped' then 'read' when 'deferred' then 'smtp_451' end,
    1,
    case c.channel when 'email' then coalesce(n.address, n.recipient_id || '@example.com') end,
    n.created_at,
    n.created_at,
    case when s.state <> 'deferred' then n.created_at + interval '2 seconds' end,
    case when s.state = 'failed' then n.created_at + interval '2 seconds' end,
    case when s.state = 'deferred' then now() + interval '10 minutes' + random() * interval '1 day' end,
    case when s.state = 'sent' then 'queued as ' || n.notification_id end,
    case when c.channel = 'push' then 1 end
from tocsin.notification n
cross join lateral (
    select 'email' as channel where n.notification_id % 10 < 4
    union all
    select 'push' where n.notification_id % 10 between 3 and 4
) c
cross join lateral (
    select case
        when n.created_at > now() - interval '1 hour' then 'deferred'
        when n.notification_id % 100 = 1 then 'failed'
        when n.notification_id % 100 = 2 then 'skipped'
        else 'sent'
    end as state
) s;

insert into tocsin.digest (recipient_id, frequency, due_at, created_at)
select g.recipient_id, 'weekly', date_trunc('day', now()) - w * interval '1 week', date_trunc('day', now()) - w * interval '1 week'
from generate_series(13, 0, -1) w
cross join tocsin.digest_preference g;

insert into tocsin.delivery (recipient_id, channel, state, attempts, address, checked_at, created_at, settled_at, digest_id)
select g.recipient_id, 'email', 'sent', 1, g.recipient_id || '@example.com', g.created_at, g.created_at, g.created_at, g.digest_id
from tocsin.digest g;

insert into tocsin.digest_item (notification_id, recipient_id, digest_id)
select n.notification_id, n.recipient_id, g.digest_id
from tocsin.notification n
join tocsin.digest_preference p using (recipient_id)
left join tocsin.digest g on g.recipient_id = n.recipient_id
    and n.created_at >= g.due_at - interval '1 week'
    and n.created_at < g.due_at
where n.notification_id % 3 = 0
    and n.created_at > now() - interval '91 days';

insert into tocsin.attempt (delivery_id, attempt, at, outcome, reason)
select
    d.delivery_id,
    1,
    d.created_at,
    case d.state when 'sent' then 'sent' when 'failed' then 'rejected' else 'deferred' end,
    d.reason
from tocsin.delivery d
where d.state <> 'skipped';

insert into tocsin.mail_event (source, key, kind, reason, dead, delivery_id, address, occurred_at, received_at, applied_at, effect)
select 'dsn', sha256(d.delivery_id::text::bytea), 'bounce', 'bounce_5.2.2', false, d.delivery_id, d.address, d.settled_at, d.settled_at, d.settled_at, 'recorded'
from tocsin.delivery d
where d.channel = 'email'
    and d.state = 'sent'
    and d.delivery_id % 300 = 0;

insert into tocsin.action (notification_id, event_id, recipient_id, key, at, seq)
select n.notification_id, n.event_id, n.recipient_id, 'approve', n.read_at, n.notification_id
from tocsin.notification n
where n.read_at is not null
    and n.recipient_id is not null
    and n.notification_id % 100 = 0;

insert into tocsin.idempotency (caller, key, fingerprint, event_id, created_at)
select 'role:app', 'order-' || e.event_id, sha256(e.event_id::text::bytea), e.event_id, e.created_at
from tocsin.event e
where e.created_at > now() - interval '2 days';

insert into tocsin.suppression (address, reason)
select r.address, 'smtp_550_5.1.1'
from tocsin.recipient r
where hashtext(r.recipient_id) % 500 = 0;

insert into tocsin.unread_counter (recipient_id, n, folded_before)
select n.recipient_id, count(*) filter (where n.in_inbox and n.archived_at is null and n.read_at is null), pg_snapshot_xmin(pg_current_snapshot())
from tocsin.notification n
where n.recipient_id is not null
group by n.recipient_id;

insert into tocsin.delivery_minute (minute, channel, state, reason, took, n)
select m, c, s::tocsin.delivery_state, case s when 'sent' then '' else 'smtp_550_5.1.1' end, case s when 'sent' then t else -1 end, 3
from generate_series(date_trunc('minute', now()) - interval '1 day', date_trunc('minute', now()), interval '1 minute') m
cross join unnest(array['email', 'push']) c
cross join unnest(array['sent', 'failed']) s
cross join generate_series(30, 49) t
on conflict do nothing;

update tocsin.delivery_minute_progress
set upto = date_trunc('minute', now());
