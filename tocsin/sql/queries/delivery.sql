-- name: claim
-- Claims deliveries for one worker: those that are still to be sent, with a token and its lease, and one attempt more.
--
-- Single mails to one person that are due together go as one (:mergeable, found by `find_mergeable`): those of the same job
-- (:others) are added here. A burst that was tried once stays together, since its Message-ID is that of all of it.
with first as (
    select d.delivery_id, d.recipient_id, d.event_id, d.burst_id, d.attempts
    from tocsin.delivery d
    where d.delivery_id = any (:delivery_ids)
        and d.channel = :channel
        and (d.state = 'queued' or d.state = 'deferred' and d.due_at <= clock_timestamp())
    for update skip locked
),
same_person as (
    select d.delivery_id, d.recipient_id, d.event_id, d.burst_id, d.attempts
    from tocsin.delivery d
    where d.delivery_id = any (:others)
        and d.channel = 'email'
        and d.state = 'queued'
        and d.attempts = 0
        and d.recipient_id in (select f.recipient_id from first f where f.attempts = 0)
    limit 50
    for update skip locked
),
same_burst as (
    select d.delivery_id, d.recipient_id, d.event_id, d.burst_id, d.attempts
    from tocsin.delivery d
    where d.burst_id = any (array(select f.burst_id from first f where f.burst_id is not null))
        and d.delivery_id <> all (:delivery_ids)
        and d.state in ('queued', 'deferred')
    order by d.delivery_id desc
    -- `throttle` takes the others, which the message only counts
    limit 200
    for update skip locked
),
mine as (
    table first
    union all
    table same_person
    union all
    table same_burst
),
mergeable_event as (
    select e.event_id
    from tocsin.event e
    join tocsin.event_type t using (event_type)
    where e.event_id = any (array(select distinct m.event_id from mine m))
        and :channel = 'email'
        and t.priority < 2
        and not t.alone
        and 'email' <> all (t.mandatory_channels)
),
mergeable as (
    select
        m.delivery_id,
        min(m.delivery_id) over (partition by m.recipient_id) as first_id,
        count(*) over (partition by m.recipient_id) as together
    from mine m
    join mergeable_event e using (event_id)
    where m.delivery_id = any (:mergeable)
        and m.attempts = 0
        and m.burst_id is null
        and m.recipient_id is not null
),
claimed as (
    -- states: queued | deferred -> sending
    update tocsin.delivery d
    set state = 'sending',
        claim = :claim,
        attempts = d.attempts + 1,
        due_at = null,
        burst_id = coalesce(d.burst_id, case when s.together > 1 then s.first_id end)
    from mine m
    left join mergeable s using (delivery_id)
    where d.delivery_id = m.delivery_id
    returning
        d.delivery_id, d.notification_id, d.event_id, d.recipient_id, d.channel, d.attempts, d.burst_id, d.digest_id,
        m.burst_id is not null as again
),
leased as (
    insert into tocsin.lease (channel, claim, process_id, delivery_ids, until)
    select :channel, :claim, :process_id::uuid, array_agg(c.delivery_id), clock_timestamp() + :lease
    from claimed c
    having count(*) > 0
)
select
    c.delivery_id,
    -- the worker sets it
    null as claim,
    c.notification_id,
    c.event_id,
    c.recipient_id,
    c.channel,
    n.priority,
    c.attempts as attempt,
    n.max_attempts,
    n.expires_at,
    n.mandatory,
    n.event_type,
    n.label,
    n.category,
    n.title,
    n.body,
    n.body_html,
    n.action_url,
    n.initiator,
    n.name,
    n.locale,
    coalesce(
        case
            when c.digest_id is not null then (
                select g.timezone
                from tocsin.digest_preference g
                where g.recipient_id = c.recipient_id
            )
        end,
        n.timezone
    ) as timezone,
    n.created_at,
    n.metadata,
    n.data,
    n.actions,
    c.burst_id,
    c.digest_id,
    n.topic,
    n.subject,
    n.replaces,
    n.because,
    n.decided_by as reason,
    n.invited,
    n.initiator_name,
    n.title_many,
    n.address,
    n.checked_at,
    n.sandbox,
    n.badge,
    n.options,
    n.withheld,
    -- whether a limit may be reached: few people get more than a quarter of the cap in an hour
    c.event_id is not null
        and c.recipient_id is not null
        -- a program reads it
        and c.channel <> 'webhook'
        and (
            c.again
            or n.throttled
            or :cap > 0 and (
                -- of the index alone, but for one row
                select x.created_at
                from tocsin.notification x
                where x.recipient_id = c.recipient_id
                    and x.xid = (
                        select y.xid
                        from tocsin.notification y
                        where y.recipient_id = c.recipient_id
                        order by y.xid desc
                        offset :cap / 4
                        limit 1
                    )
                limit 1
            -- what is late may be sent with others that are
            ) > statement_timestamp() - case
                when n.created_at < statement_timestamp() - interval '1 hour' then interval '4 days'
                else interval '1 hour'
            end
        ) as near_limit,
    -- the worker fills it by `timezone`, whose rules it keeps
    null as zone,
    -- and this by `throttle`
    null as counted
from claimed c
cross join lateral tocsin.delivery_snapshot(c.delivery_id) n
order by n.priority desc, c.delivery_id;

-- name: throttle
-- Decides which deliveries of a claim are sent now, and defers what is beyond a limit.
select
    t.delivery_id,
    t.burst_id,
    t.counted,
    t.held,
    t.caller
from tocsin.throttle(:claim, :delivery_ids, :withheld, :cap) t;

-- name: undo_claim!
-- Undoes a claim whose result never arrived because the connection was lost: nobody tried these deliveries.
with given_back as (
    -- states: sending -> queued
    update tocsin.delivery d
    set state = 'queued',
        claim = null,
        due_at = clock_timestamp(),
        attempts = d.attempts - 1
    from tocsin.lease l
    where l.claim = :claim
        and d.delivery_id = any (l.delivery_ids)
        and d.claim = l.claim
        and d.state = 'sending'
)
delete from tocsin.lease l
where l.claim = :claim;

-- name: find_mergeable
-- Which of some deliveries may go as one mail because they are for the same person.
select array_agg(d.delivery_id) as delivery_ids
from tocsin.delivery d
where d.delivery_id = any (:delivery_ids)
    and d.state = 'queued'
    and d.attempts = 0
    and d.recipient_id is not null
group by d.recipient_id
having count(*) > 1;

-- name: presend_check
-- The check right before sending: whether the claim still holds, whether the delivery may still be sent, and the address. A
-- claim that was lost is not in the result.
select
    m.delivery_id,
    n.address,
    n.checked_at,
    n.sandbox,
    n.badge,
    n.options,
    coalesce(
        n.withheld,
        case
            when n.digest_id is not null
                and tocsin.digest_contents(n.digest_id) <> string_to_array(m.contents, ',')::bigint[]
                then 'changed'
        end
    ) as withheld,
    n.wait
-- contents: of a digest, the notifications that were rendered
from unnest(:delivery_ids::bigint[], :claims::uuid[], :contents::text[]) m (delivery_id, claim, contents)
cross join lateral tocsin.delivery_snapshot(m.delivery_id) n
where n.held_by = m.claim
    and m.claim = any (array(
        select l.claim
        from tocsin.lease l
        where l.claim = any (:claims::uuid[])
            and l.until > clock_timestamp()
    ));

-- name: settle_sent
-- The same as `settle` for sent deliveries, which most are: a third of the work. An attempt whose number is taken is an error
-- here, since to look for it would take a seventh of the time.
with outcome as (
    select
        o.delivery_id,
        o.claim,
        o.address,
        o.checked_at,
        o.provider_id,
        o.provider
    from unnest(
        :delivery_ids::bigint[],
        :claims::uuid[],
        :addresses::text[],
        :checked_ats::timestamptz[],
        :provider_ids::text[],
        :providers::text[]
    ) o (delivery_id, claim, address, checked_at, provider_id, provider)
),
settled as (
    -- states: sending -> sent
    update tocsin.delivery d
    set state = 'sent',
        reason = null,
        claim = null,
        due_at = null,
        address = case when d.target_id is null then coalesce(o.address, d.address) else tocsin.target_name(d) end,
        checked_at = coalesce(o.checked_at, d.checked_at),
        provider_id = o.provider_id,
        settled_at = statement_timestamp()
    from outcome o
    where d.delivery_id = o.delivery_id
        and d.claim = o.claim
    returning d.delivery_id, d.attempts, o.provider
),
ended as (
    insert into tocsin.settled_batch (settled_at, delivery_ids)
    select statement_timestamp(), array_agg(s.delivery_id)
    from settled s
    having count(*) > 0
),
tried as (
    insert into tocsin.attempt (delivery_id, attempt, at, outcome, provider)
    select s.delivery_id, s.attempts, clock_timestamp(), 'sent', s.provider
    from settled s
)
select s.delivery_id
from settled s;

-- name: settle
-- Writes outcomes, each only while its claim still holds the delivery; returns those that were written.
select d.delivery_id
from tocsin.settle(
    :delivery_ids::bigint[],
    :claims::uuid[],
    :states::tocsin.delivery_state[],
    :reasons::text[],
    :delays::interval[],
    :outcomes::text[],
    :attempt_reasons::text[],
    :addresses::text[],
    :checked_ats::timestamptz[],
    :provider_ids::text[],
    :dead::boolean[],
    :dead_sinces::timestamptz[],
    :providers::text[]
) d (delivery_id);

-- name: renew!
-- Renews the leases of claims whose messages wait.
update tocsin.lease l
set until = clock_timestamp() + :lease
where l.claim = any (:claims);

-- name: close_leases!
-- At the end of a job, deletes its lease and those of its claims, where they hold nothing any more.
delete from tocsin.lease l
where (l.claim = any (:claims) or l.claim is null and l.delivery_ids[1] = :job)
    and not exists (
        select
        from tocsin.delivery d
        where d.delivery_id = any (l.delivery_ids)
            and tocsin.is_held(d, l.claim)
    );

-- name: release!
-- Gives back dispatched deliveries that were not claimed: this worker stops.
update tocsin.delivery d
set due_at = clock_timestamp() + :delay + random() * :spread
where d.delivery_id = any (:delivery_ids)
    and d.state = 'queued';

-- name: endpoints
-- The target of each of some deliveries, with its address.
select d.delivery_id, g.target_id, g.url
from tocsin.delivery d
join tocsin.target g using (target_id)
where d.delivery_id = any (:delivery_ids);

-- name: providers
-- The provider of each of some push deliveries.
select
    d.delivery_id,
    -- Apple has a separate address for the tokens of apps in development
    case when v.provider = 'apns' and v.environment = 'sandbox' then 'apns_sandbox' else v.provider end as provider
from tocsin.delivery d
join tocsin.device v using (device_id)
where d.delivery_id = any (:delivery_ids);

-- name: zone_changes
-- The rules of these time zones; names that PostgreSQL does not know are not in the result.
select
    z.name,
    c.starts,
    c.utc_offsets
from tocsin.timezone z
cross join lateral tocsin.zone_changes(z.name) c
where z.name = any (:names::text[]);

-- name: take_slots
-- Takes slots of a channel that has a rate; returns in how many seconds the first one is.
select tocsin.take_slots(:channel, :count, :gap);

-- name: hold_sending!
-- Stores a pause that a provider asked for, for all workers.
select tocsin.hold_sending(:key, :reason, :seconds);
