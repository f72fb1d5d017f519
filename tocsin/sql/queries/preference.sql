-- name: check_topic
-- Raises an error where this is not a valid topic.
select tocsin.check_topic(:topic);

-- name: create_missing_recipient!
-- Creates a person at their first write.
insert into tocsin.recipient (recipient_id)
values (:recipient_id)
on conflict do nothing;

-- name: subscribe
-- Subscribes to a topic, or changes the level; returns whether that changed something.
select tocsin.subscribe(:recipient_id, :topic, :level);

-- name: unsubscribe
-- Removes a subscription; false where the topic was neither followed nor muted.
select tocsin.unsubscribe(:recipient_id, :topic);

-- name: get_subscription
-- A person's subscription to one topic.
select
    s.subscription_id as id,
    s.topic,
    s.level,
    s.because,
    s.created_at
from tocsin.subscription s
where s.topic = :topic
    and s.recipient_id = :recipient_id
order by s.event_id
limit 1;

-- name: list_older_subscriptions
-- The topics that a person follows or has muted, newest first, from a position in the list on; each topic once.
select
    s.subscription_id as id,
    s.topic,
    s.level,
    s.because,
    s.created_at
from tocsin.subscription s
where s.recipient_id = :recipient_id
    and (s.created_at, s.subscription_id) < (coalesce(:at, 'infinity'::timestamptz), coalesce(:id, 9223372036854775807))
    and not exists (
        select
        from tocsin.subscription o
        where o.topic = s.topic
            and o.recipient_id = s.recipient_id
            and o.event_id < s.event_id
    )
order by s.created_at desc, s.subscription_id desc
limit :limit;

-- name: list_newer_subscriptions
-- The topics just after a position in the list, oldest first.
select
    s.subscription_id as id,
    s.topic,
    s.level,
    s.because,
    s.created_at
from tocsin.subscription s
where s.recipient_id = :recipient_id
    and (s.created_at, s.subscription_id) > (:at, :id)
    and not exists (
        select
        from tocsin.subscription o
        where o.topic = s.topic
            and o.recipient_id = s.recipient_id
            and o.event_id < s.event_id
    )
order by s.created_at, s.subscription_id
limit :limit;

-- name: latest_of_topics
-- The last notification of some topics among a person's newest 500 notifications: a topic has no title of its own.
--
-- The limit keeps it to one range of the inbox's index and 500 keys of event, whatever the size of either.
with newest as materialized (
    select
        n.notification_id,
        n.event_id,
        n.created_at
    from tocsin.notification n
    where n.recipient_id = :recipient_id
        and n.in_inbox
        and n.archived_at is null
    order by n.created_at desc, n.notification_id desc
    limit 500
)
select distinct on (e.topic)
    e.topic,
    n.notification_id,
    e.title,
    e.action_url,
    n.created_at
from newest n
join tocsin.event e using (event_id)
where e.topic = any (:topics)
order by e.topic, n.created_at desc, n.notification_id desc;

-- name: find_address_owner
-- The recipient to whom an address belongs, if any.
select tocsin.find_address_owner(tocsin.compared_address(:address));

-- name: turn_digest_off
-- Turns a person's digest off; returns the frequency before, and no row where it was off.
select p.frequency
from tocsin.digest_preference p
cross join tocsin.turn_digest_off(p.recipient_id) t (changed)
where p.recipient_id = :recipient_id
    and t.changed;

-- name: turn_digest_on
-- Turns a person's digest on again where an unsubscribe link turned it off.
select tocsin.set_digest_preference(p.recipient_id, :frequency, null, null, null, null)
from tocsin.digest_preference p
where p.recipient_id = :recipient_id
    and p.unsubscribed;

-- name: mute_topic
-- Mutes a topic for a person.
select tocsin.subscribe(:recipient_id, :topic, 'muted');

-- name: unmute_topic
-- Undoes that.
select tocsin.unmute(:recipient_id, :topic);

-- name: save_for_undo!
-- Stores what a link turned off; what is stored already stays, so that clicking twice does no harm.
insert into tocsin.opt_out (recipient_id, key, kept)
values (:recipient_id, :key, :kept)
on conflict do nothing;

-- name: take_saved
-- Returns what was stored, and deletes it.
delete from tocsin.opt_out o
where o.recipient_id = :recipient_id
    and o.key = :key
returning o.kept;

-- name: get_quiet_hours
-- A person's quiet hours in their time zone, or in the person's; null where there are none.
select
    to_char(q.starts, 'HH24:MI') as starts,
    to_char(q.ends, 'HH24:MI') as ends,
    coalesce(q.timezone, r.timezone, 'UTC') as timezone
from (values (:recipient_id)) p (recipient_id)
left join tocsin.recipient r using (recipient_id)
left join tocsin.quiet_hours q using (recipient_id);

-- name: set_quiet_hours!
-- Sets quiet hours; creates the person where they are unknown.
with person as (
    insert into tocsin.recipient (recipient_id)
    values (:recipient_id)
    on conflict do nothing
)
insert into tocsin.quiet_hours (recipient_id, starts, ends, timezone)
values (:recipient_id, :starts, :ends, :timezone)
on conflict (recipient_id) do update
set starts = excluded.starts, ends = excluded.ends, timezone = excluded.timezone, updated_at = now();

-- name: end_quiet_hours!
-- Removes quiet hours.
delete from tocsin.quiet_hours q
where q.recipient_id = :recipient_id;

-- name: recheck_quiet_hours
-- Deliveries that wait for the end of a person's quiet hours are due now, and wait again where they have to.
select tocsin.recheck_quiet_hours(:recipient_id);

-- name: get_preferences
-- Which channels are on for a person, by the rules of tocsin.decide, and where each choice comes from.
with further as materialized (
    select tocsin.further_channels_of(:recipient_id) as channels
),
choice as (
    select
        t.event_type,
        t.position as type_position,
        c.channel,
        c.channel = any (t.mandatory_channels) as mandatory,
        tocsin.is_default(t, c.channel) as standard,
        p.enabled,
        p.scope
    from tocsin.event_type t
    cross join tocsin.channel c
    cross join further f
    left join lateral (
        select
            p.enabled,
            p.scope
        from tocsin.preference p
        where p.recipient_id = :recipient_id
            and p.channel = c.channel
            and p.scope in (t.event_type, t.category || '.*', '*')
        order by p.scope = t.event_type desc, p.scope <> '*' desc
        limit 1
    ) p on true
    where t.retired_at is null
        and (not c.further or c.channel = any (f.channels))
),
by_type as (
    select
        c.event_type,
        jsonb_object_agg(c.channel, c.mandatory or coalesce(c.enabled, c.standard)) as channels,
        jsonb_object_agg(
            c.channel,
            case
                when c.mandatory then 'mandatory'
                when c.scope is null then 'default'
                when c.scope = c.event_type then 'type'
                else c.scope
            end
        ) as sources,
        jsonb_agg(c.channel) filter (where c.mandatory) as mandatory
    from choice c
    group by c.event_type
),
by_scope as (
    select
        p.scope,
        jsonb_object_agg(p.channel, p.enabled) as channels
    from tocsin.preference p
    where p.recipient_id = :recipient_id
    group by p.scope
)
select
    coalesce((select jsonb_object_agg(b.event_type, b.channels) from by_type b), '{}') as event_types,
    coalesce((select jsonb_object_agg(b.event_type, b.sources) from by_type b), '{}') as sources,
    coalesce((select jsonb_object_agg(s.scope, s.channels) from by_scope s), '{}') as overrides,
    coalesce(
        (select jsonb_object_agg(b.event_type, b.mandatory) from by_type b where b.mandatory is not null),
        '{}'
    ) as mandatory,
    tocsin.complaints_of(:recipient_id) as complaints;

-- name: preference_keys
-- The scopes and channels that an override may have.
select
    array(
        select '*'
        union all
        select c.category || '.*'
        from tocsin.category c
        union all
        select t.event_type
        from tocsin.event_type t
    ) as scopes,
    array(
        select c.channel
        from tocsin.channel c
        order by c.position
    ) as channels,
    coalesce(
        (
            select jsonb_object_agg(t.event_type, t.mandatory_channels)
            from tocsin.event_type t
            where t.mandatory_channels <> '{}'
        ),
        '{}'
    ) as mandatory;

-- name: set_overrides!
-- Changes overrides {scope: {channel: true, false or null}}; null deletes one. Creates the person where they are unknown.
with person as (
    insert into tocsin.recipient (recipient_id)
    values (:recipient_id)
    on conflict do nothing
),
change as (
    select
        s.scope,
        c.channel,
        c.enabled
    from jsonb_each(:overrides) s (scope, channels)
    cross join jsonb_each_text(s.channels) c (channel, enabled)
),
inherited as (
    delete from tocsin.preference p
    using change c
    where p.recipient_id = :recipient_id
        and p.scope = c.scope
        and p.channel = c.channel
        and c.enabled is null
)
insert into tocsin.preference as p (recipient_id, scope, channel, enabled)
select
    :recipient_id,
    c.scope,
    c.channel,
    c.enabled::boolean
from change c
where c.enabled is not null
-- in the same order in each call, so that two devices can't deadlock
order by c.scope, c.channel
on conflict (recipient_id, scope, channel) do update
set enabled = excluded.enabled, because = null, updated_at = now()
where p.enabled <> excluded.enabled
    or p.because is not null;
