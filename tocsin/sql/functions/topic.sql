-- Topics: who follows one, and who is notified of an event of it.

-- Notifies the followers of a topic; with subscribe_initiator the initiator follows the topic from then on, unless they have
-- muted it.
create or replace function tocsin.notify_topic(
    topic text,
    event_type text,
    title text,
    body text default '',
    action_url text default null,
    metadata jsonb default '{}',
    initiator text default null,
    idempotency_key text default null,
    body_html text default null,
    send_at timestamptz default null,
    subscribe_initiator boolean default false,
    subject text default null,
    replaces boolean default false,
    content jsonb default null,
    actions jsonb default null,
    unknown text default 'error'
) returns bigint
language sql
security definer
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
    -- as tocsin.notify; a null topic is refused like an empty one
    select e.event_id
    from tocsin.create_event(
        ('role:' || session_user) collate "default", $2, null, coalesce($1, ''), null, $3, $4, $5, $6, $7, $8, $9, $10, $11,
        $12, $13, $14, $15, $16
    ) e
$$;

-- Follows a topic, or changes its level. Returns whether that changed something.
create or replace function tocsin.subscribe(recipient text, topic text, level text default 'all') returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
#variable_conflict use_column
declare
    _before tocsin.subscription;
    _changed boolean;
begin
    perform tocsin.check_topic($2);
    if $3 is null or $3 not in ('all', 'mentions', 'muted') then
        perform tocsin.raise_invalid('level', format('level %s is not known', quote_nullable(left($3, 60))), 'Use one of all, mentions, muted.');
    end if;
    perform tocsin.check_recipients_known(array[$1], 'recipient');
    select s.* into _before
    from tocsin.subscription s
    where s.topic = $2
        and s.recipient_id = $1
    order by s.event_id
    limit 1;
    if _before.topic is null and 1000 <= (
        select count(distinct s.topic)
        from tocsin.subscription s
        where s.recipient_id = $1
    ) then
        perform tocsin.raise_invalid('topic', 'the recipient follows 1,000 topics already',
            'Unsubscribe from some first; GET /api/subscriptions/ lists them.');
    end if;
    if _before.level = $3 then
        return false;
    end if;
    insert into tocsin.subscription as s (topic, recipient_id, level, because, level_before, created_at)
    values (
        $2, $1, $3, coalesce(_before.because, 'followed'), case when $3 = 'muted' then _before.level end,
        -- also of a person who follows it by a reply: a fan-out that is running is for those who followed before it
        coalesce(_before.created_at, clock_timestamp())
    )
    on conflict (topic, recipient_id, event_id) do update
    set level = excluded.level,
        level_before = case when excluded.level = 'muted' then s.level end,
        updated_at = clock_timestamp()
    where s.level <> excluded.level;
    _changed := found;
    -- one row is enough now: it keeps that the person replied
    delete from tocsin.subscription s
    where s.topic = $2
        and s.recipient_id = $1
        and s.event_id <> 0;
    return _changed;
end
$$;

-- Removes a subscription, also a muted one. Returns whether there was one.
create or replace function tocsin.unsubscribe(recipient text, topic text) returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from tocsin.subscription s
    where s.topic = $2
        and s.recipient_id = $1;
    return found;
end
$$;

-- Undoes muting a topic: it is followed as before, or not at all. Returns whether that changed something.
create or replace function tocsin.unmute(_recipient_id text, _topic text) returns boolean
language plpgsql
as $$
begin
    delete from tocsin.subscription s
    where s.topic = _topic
        and s.recipient_id = _recipient_id
        and s.level = 'muted'
        and s.level_before is null;
    if found then
        return true;
    end if;
    update tocsin.subscription s
    set level = s.level_before, level_before = null, updated_at = clock_timestamp()
    where s.topic = _topic
        and s.recipient_id = _recipient_id
        and s.level = 'muted';
    return found;
end
$$;

-- Everyone who follows or has muted an event's topic, and why each is notified, or is not ('muted', 'not_mentioned').
--
-- Mentioned are the people in the list metadata -> 'mentions'; without such a list everybody is, where the event type is a
-- mention.
create or replace function tocsin.topic_audience(_event tocsin.event)
returns table (recipient_id text, because text, followed_at timestamptz)
language sql stable
as $$
    select distinct on (s.recipient_id)
        s.recipient_id,
        case
            when s.level = 'muted' then 'muted'
            when case jsonb_typeof(_event.metadata -> 'mentions')
                when 'array' then s.recipient_id in (
                    select jsonb_array_elements_text(
                        case jsonb_typeof(_event.metadata -> 'mentions')
                            when 'array' then _event.metadata -> 'mentions'
                            else '[]'
                        end
                    )
                )
                else t.mention
            end then 'mentioned'
            when s.level = 'mentions' then 'not_mentioned'
            else s.because
        end,
        s.created_at
    from tocsin.subscription s
    join tocsin.event_type t on t.event_type = _event.event_type
    where s.topic = _event.topic
    -- the order of the primary key
    order by s.recipient_id, s.event_id
$$;

-- The same without the event's initiator.
create or replace function tocsin.followers(_event tocsin.event) returns table (recipient_id text, because text)
language sql stable
as $$
    select a.recipient_id, a.because
    from tocsin.topic_audience(_event) a
    where a.recipient_id is distinct from _event.initiator
$$;

-- Whether the initiator would have been notified as a follower.
create or replace function tocsin.skips_initiator(_event tocsin.event) returns boolean
language sql stable
as $$
    select exists (
        select
        from tocsin.topic_audience(_event) a
        where a.recipient_id = _event.initiator
            and a.because not in ('muted', 'not_mentioned')
    )
$$;

-- The initiator follows the topic from now on because they replied, unless they follow or have muted it already. It waits for
-- no other transaction: the row belongs to this event alone.
create or replace function tocsin.follow_by_reply(_event tocsin.event) returns void
language sql
as $$
    insert into tocsin.subscription (topic, recipient_id, event_id, level, because)
    select _event.topic, r.recipient_id, _event.event_id, 'all', 'replied'
    from tocsin.recipient r
    where r.recipient_id = _event.initiator
        and not exists (
            select
            from tocsin.subscription s
            where s.topic = _event.topic
                and s.recipient_id = r.recipient_id
        )
$$;

create or replace function tocsin.check_topic(_topic text) returns void
language plpgsql
as $$
begin
    if _topic is null or _topic !~ '^[A-Za-z0-9._:/-]{1,200}$' then
        perform tocsin.raise_invalid('topic', 'topic is not 1 to 200 characters of A-Z a-z 0-9 . _ : / -', 'Name the thing that is followed, such as forum.thread:42.');
    end if;
end
$$;

-- Why a person who was notified for a topic must not get the delivery any more: the topic is muted, or not followed any more.
-- Null: it is still followed.
create or replace function tocsin.topic_withheld_reason(_topic text, _recipient_id text, _notification_id bigint) returns text
language sql stable
as $$
    select case
        when f.level = 'muted' then 'muted'
        when f.level = 'all' then null
        when f.level = 'mentions' and exists (
            select
            from tocsin.notification o
            where o.notification_id = _notification_id
                and o.because = 'mentioned'
        )
            then null
        else 'opted_out_since'
    end
    from (
        select (
            select s.level
            from tocsin.subscription s
            where s.topic = _topic
                and s.recipient_id = _recipient_id
            order by s.event_id
            limit 1
        ) as level
    ) f
$$;
