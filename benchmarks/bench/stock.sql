-- A realistic database: `bench.rows` notifications (usually a million) for ten thousand people, skewed. Three of them, p1
-- to p3, have a twentieth of all each, all unread. The tables have dead rows and are not vacuumed (connections are not
-- allowed, so autovacuum can't either), and Procrastinate has finished jobs. Statements are separated by an empty line.
select setseed(0.42);

insert into tocsin.recipient (recipient_id, email, name, locale)
select 'p' || i, 'p' || i || '@example.com', 'Person ' || i, 'en'
from generate_series(1, 10000) i;

insert into tocsin.device (token, recipient_id, platform, provider)
select md5(i::text) || md5((i + 1)::text), 'p' || i, case i % 2 when 0 then 'ios' else 'android' end, case i % 2 when 0 then 'apns' else 'fcm' end
from generate_series(1, 10000) i
where i % 5 < 3;

insert into tocsin.preference (recipient_id, scope, channel, enabled)
select 'p' || i, case i % 3 when 0 then '*' when 1 then 'forum.*' else 'forum.new_reply' end, 'email', i % 2 = 0
from generate_series(1, 10000) i
where i % 5 = 0;

insert into tocsin.event (event_type, title, body, action_url, metadata, caller, created_at, fanned_out_at, expires_at, event_id)
select
    t.event_type,
    'New reply in ''Spring Formal Planning'' ' || i,
    'Bob: I would book the old mill by the lake, it has room for ' || i || ' of us and a kitchen of its own.',
    '/forums/' || i % 1000,
    jsonb_build_object('thread', i % 1000),
    'role:app',
    e.at,
    e.at,
    e.at + interval '3 days',
    i
from generate_series(1, current_setting('bench.rows')::integer / 20) i
cross join lateral (
    select now() - interval '80 days' * (1 - i / (current_setting('bench.rows')::double precision / 20)) as at
) e
cross join lateral (
    select (array['forum.new_reply', 'forum.new_thread', 'bulletin.new_chapter', 'messages.new_dm', 'approval.requested', 'recognition.received', 'event.changed', 'learning.assigned'])[1 + i % 8] as event_type
) t;

select setval('tocsin.event_event_id_seq', current_setting('bench.rows')::integer / 20);

-- The three busy people get every event, unread.
insert into tocsin.notification (event_id, recipient_id, event_type, created_at, in_inbox, decisions)
select e.event_id, p.person, e.event_type, e.created_at, true, '{"in_app": ["on", "default"], "email": ["off", "preference", "*"], "push": ["off", "no_device"]}'
from tocsin.event e
cross join (values ('p1'), ('p2'), ('p3')) p (person)
order by e.event_id;

-- All others: the lower the number, the more notifications.
insert into tocsin.notification (event_id, recipient_id, event_type, created_at, in_inbox, read_at, decisions)
select
    n.event_id,
    n.person,
    e.event_type,
    e.created_at,
    true,
    case when random() < 0.8 then e.created_at + random() * interval '2 days' end,
    '{"in_app": ["on", "default"], "email": ["on", "default"], "push": ["on", "default"]}'
from (
    select 1 + i % (current_setting('bench.rows')::integer / 20) as event_id, 'p' || 4 + floor(9996 * power(random(), 2))::integer as person
    from generate_series(1, current_setting('bench.rows')::integer * 17 / 20) i
) n
join tocsin.event e using (event_id)
on conflict do nothing;

insert into tocsin.delivery (notification_id, event_id, recipient_id, channel, state, attempts, address, checked_at, created_at, settled_at, provider_id)
select n.notification_id, n.event_id, n.recipient_id, 'email', 'queued', 1, n.recipient_id || '@example.com', n.created_at, n.created_at, n.created_at, 'ok'
from tocsin.notification n
where n.notification_id % 3 = 0;

insert into tocsin.attempt (delivery_id, attempt, at, outcome)
select d.delivery_id, 1, d.created_at, 'sent'
from tocsin.delivery d;

-- Dead rows in each table, as after a month of use.
update tocsin.delivery
set state = 'sent'
where delivery_id % 2 = 0;

update tocsin.delivery
set state = 'sent'
where delivery_id % 2 = 1;

update tocsin.notification
set read_at = created_at + interval '1 hour'
where read_at is null
    and recipient_id not in ('p1', 'p2', 'p3')
    and notification_id % 3 = 0;

delete from tocsin.notification
where read_at is not null
    and notification_id % 19 = 0;

insert into tocsin.unread_counter (recipient_id, n, folded_before)
select n.recipient_id, count(*), pg_snapshot_xmin(pg_current_snapshot())
from tocsin.notification n
where n.in_inbox
    and n.archived_at is null
    and n.read_at is null
group by n.recipient_id;

update tocsin.unread_counter
set n = n;

insert into tocsin.unread_delta (recipient_id, n)
select n.recipient_id, 1
from tocsin.notification n
where n.notification_id % 5 = 0;

delete from tocsin.unread_delta;

insert into tocsin_queue.procrastinate_jobs (queue_name, task_name, args)
select 'email', 'send_notification_emails', '{"delivery_ids": [1]}'
from generate_series(1, current_setting('bench.rows')::integer / 20);

update tocsin_queue.procrastinate_jobs
set status = 'doing';

update tocsin_queue.procrastinate_jobs
set status = 'succeeded';

analyze
