-- After a restore of the database: what a backup does not know, since it happened later (`tocsin restored`).

-- Settles deliveries that were sent after the backup, as the logs of workers or of the mail server show. Each has the time and
-- the provider of its line; an older line of another delivery that had the same id is left out. Returns how many, by channel.
create or replace function tocsin.settle_restored(_delivery_ids bigint[], _sent_ats timestamptz[], _providers text[])
returns table (channel text, n bigint)
language plpgsql
as $$
begin
    return query
    with line as (
        select distinct on (u.delivery_id) u.delivery_id, u.sent_at, u.provider
        from unnest(_delivery_ids, _sent_ats, _providers) u (delivery_id, sent_at, provider)
        join tocsin.delivery o using (delivery_id)
        where u.sent_at >= o.created_at
        order by u.delivery_id, u.sent_at
    ),
    settled as (
        -- states: queued | sending | deferred -> sent
        update tocsin.delivery d
        set state = 'sent',
            reason = null,
            claim = null,
            due_at = null,
            attempts = d.attempts + case when d.state = 'sending' then 0 else 1 end,
            settled_at = l.sent_at
        from line l
        where d.delivery_id = l.delivery_id
            and d.state in ('queued', 'sending', 'deferred')
        returning d.delivery_id, d.channel, d.attempts, l.sent_at, l.provider
    ),
    tried as (
        insert into tocsin.attempt (delivery_id, attempt, at, outcome, provider)
        select s.delivery_id, s.attempts, s.sent_at, 'sent', s.provider
        from settled s
        on conflict do nothing
    ),
    ended as (
        insert into tocsin.settled_batch (settled_at, delivery_ids)
        select statement_timestamp(), array_agg(s.delivery_id)
        from settled s
        having count(*) > 0
    )
    select s.channel, count(*)
    from settled s
    group by s.channel
    order by s.channel;
end
$$;

-- Holds all deliveries that may have been sent: they fail with the reason `restored`, and a replay sends them. Returns how many, by
-- channel. Badge pushes are left: the next one corrects the count.
create or replace function tocsin.hold_restored() returns table (channel text, n bigint)
language plpgsql
as $$
begin
    return query
    with held as (
        -- states: queued | sending | deferred -> failed
        update tocsin.delivery d
        set state = 'failed',
            reason = 'restored',
            claim = null,
            due_at = null,
            settled_at = statement_timestamp(),
            failed_at = statement_timestamp()
        where d.state in ('queued', 'sending', 'deferred')
            and coalesce(d.event_id, d.digest_id) is not null
            -- what is due later was not sent yet
            and coalesce(d.due_at, d.created_at) <= statement_timestamp()
        returning d.delivery_id, d.channel
    ),
    ended as (
        insert into tocsin.settled_batch (settled_at, delivery_ids)
        select statement_timestamp(), array_agg(h.delivery_id)
        from held h
        having count(*) > 0
    )
    select h.channel, count(*)
    from held h
    group by h.channel
    order by h.channel;
end
$$;

-- Lets all ids continue later by so many: those of rows that were made after the backup are known outside, in mails, phones and apps,
-- and must not become those of others. For the owner of the sequences.
create or replace function tocsin.skip_ids(_by bigint) returns bigint
language sql
as $$
    select count(setval(c.oid::regclass, coalesce(pg_sequence_last_value(c.oid::regclass), 0) + _by))
    from pg_class c
    where c.relnamespace = 'tocsin'::regnamespace
        and c.relkind = 'S'
$$;
