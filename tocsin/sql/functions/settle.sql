-- Outcomes of deliveries: docs/delivery.md has the states.

-- Writes outcomes, each only while its claim still holds the delivery. What is deferred beyond its expiry expires. With
-- `_dead` the address or token is suppressed or disabled. Returns the deliveries that were written.
create or replace function tocsin.settle(
    _delivery_ids bigint[],
    _claims uuid[],
    _states tocsin.delivery_state[],
    _reasons text[],
    _delays interval[],
    _outcomes text[],
    _attempt_reasons text[],
    _addresses text[],
    _checked_ats timestamptz[],
    _provider_ids text[],
    _dead boolean[],
    _dead_sinces timestamptz[],
    _providers text[]
) returns setof bigint
language plpgsql
as $$
declare
    _settled bigint[];
    _deferred boolean;
begin
    with outcome as (
        select
            o.delivery_id,
            o.claim,
            o.state,
            o.reason,
            o.delay,
            o.outcome,
            o.attempt_reason,
            o.address,
            o.checked_at,
            o.provider_id,
            o.dead,
            o.dead_since,
            o.provider
        from unnest(
            _delivery_ids,
            _claims,
            _states,
            _reasons,
            _delays,
            _outcomes,
            _attempt_reasons,
            _addresses,
            _checked_ats,
            _provider_ids,
            _dead,
            _dead_sinces,
            _providers
        ) o (
            delivery_id, claim, state, reason, delay, outcome, attempt_reason, address, checked_at, provider_id, dead,
            dead_since, provider
        )
    ),
    timed as (
        select
            o.delivery_id,
            o.state = 'deferred' as again,
            clock_timestamp() + o.delay as due_at,
            o.state = 'deferred' and clock_timestamp() + o.delay >= coalesce(d.expires_at, e.expires_at, 'infinity') as over
        from outcome o
        join tocsin.delivery d using (delivery_id, claim)
        left join tocsin.event e using (event_id)
    ),
    settled as (
        -- states: sending -> sent | deferred | failed | skipped | cancelled | expired
        update tocsin.delivery d
        set state = case when t.over then 'expired' else o.state end,
            reason = case when t.over then 'expired' else o.reason end,
            claim = null,
            due_at = case when t.again and not t.over then t.due_at end,
            -- without an outcome it was not tried, and that counts as no attempt
            attempts = d.attempts - case when o.outcome is null then 1 else 0 end,
            address = case when d.target_id is null then coalesce(o.address, d.address) else tocsin.target_name(d) end,
            checked_at = coalesce(o.checked_at, d.checked_at),
            provider_id = o.provider_id,
            settled_at = case when t.over or not t.again then statement_timestamp() end,
            failed_at = case when o.state = 'failed' then statement_timestamp() end
        from outcome o
        join timed t using (delivery_id)
        where d.delivery_id = o.delivery_id
            and d.claim = o.claim
        returning d.delivery_id, d.device_id, d.target_id, d.attempts, d.state, o.outcome, o.attempt_reason, o.address, o.dead, o.dead_since,
            o.provider
    ),
    ended as (
        insert into tocsin.settled_batch (settled_at, delivery_ids)
        select statement_timestamp(), array_agg(s.delivery_id)
        from settled s
        where s.state <> 'deferred'
        having count(*) > 0
    ),
    tried as (
        insert into tocsin.attempt (delivery_id, attempt, at, outcome, reason, provider)
        select s.delivery_id, s.attempts, clock_timestamp(), s.outcome, s.attempt_reason, s.provider
        from settled s
        where s.outcome is not null
        on conflict do nothing
    ),
    suppressed as (
        insert into tocsin.suppression (address, reason)
        select distinct on (a.address) a.address, s.attempt_reason
        from settled s
        cross join lateral (select tocsin.compared_address(s.address) as address) a
        where s.dead
            and s.device_id is null
            and s.target_id is null
            -- read first: an open claim_email() may be deleting it, and the insert would wait for that
            and not exists (select from tocsin.suppression k where k.key = tocsin.address_key(a.address))
        on conflict do nothing
    ),
    disabled as (
        update tocsin.device v
        set disabled_at = clock_timestamp(), disabled_reason = s.attempt_reason
        from settled s
        where s.dead
            and v.device_id = s.device_id
            and v.token = s.address
            -- the token may have been registered again since the provider refused it
            and v.registered_at <= coalesce(s.dead_since, clock_timestamp())
    ),
    failing as (
        update tocsin.target g
        set failing_since = clock_timestamp()
        where g.failing_since is null
            and g.target_id in (select s.target_id from settled s where s.outcome in ('deferred', 'unknown', 'rejected'))
            -- a row is updated once in a statement
            and g.target_id not in (select s.target_id from settled s where s.dead and s.target_id is not null)
    ),
    disabled_targets as (
        update tocsin.target g
        set disabled_at = clock_timestamp(), disabled_reason = s.attempt_reason
        from settled s
        where s.dead
            and g.target_id = s.target_id
            and g.disabled_at is null
            -- the app may have put another address since
            and g.url = s.address
            and g.updated_at <= coalesce(s.dead_since, clock_timestamp())
    )
    select array_agg(s.delivery_id), bool_or(s.state = 'deferred')
    into _settled, _deferred
    from settled s;
    if _deferred then
        -- the leader may be idle beyond the retry
        perform tocsin.wake();
    end if;
    return query select unnest(_settled);
end
$$;

-- The name of a delivery's target, which stands for its secret address in the ledger; what was written before where it is gone.
create or replace function tocsin.target_name(_delivery tocsin.delivery) returns text
language sql stable
as $$
    select coalesce(
        (
            select g.name
            from tocsin.target g
            where g.target_id = _delivery.target_id
        ),
        _delivery.address
    )
$$;
