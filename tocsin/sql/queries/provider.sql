-- name: offer_providers!
-- Says that this worker has these providers; a channel is available while some worker said so within :good_for. Nothing
-- is said of providers that it doesn't have: those are for the others to say.
with offered as (
    insert into tocsin.provider as p (channel, provider, offered_at)
    select o.channel, o.provider, clock_timestamp()
    from unnest(:channels::text[], :providers::text[]) o (channel, provider)
    -- in one order for all workers
    order by o.channel, o.provider
    on conflict (channel, provider) do update
    set offered_at = excluded.offered_at
)
update tocsin.channel c
set available = not c.available
where c.task is not null
    and c.available <> (
        c.channel = any (:channels)
        -- as of before this statement
        or exists (
            select
            from tocsin.provider p
            where p.channel = c.channel
                and p.offered_at > clock_timestamp() - :good_for
        )
    );

-- name: is_offered
-- Whether some worker said within :good_for that it has this provider of a channel.
select exists (
    select
    from tocsin.provider p
    where p.channel = :channel
        and p.provider = :provider
        and p.offered_at > clock_timestamp() - :good_for
);
