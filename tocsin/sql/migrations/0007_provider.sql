-- Which providers the workers have, each with the time at which one last said so: a worker speaks for its own alone.
-- tocsin.channel.available, which notify() reads, is kept beside it and written only when it changes.
create table tocsin.provider (
    channel text not null references tocsin.channel,
    provider text not null,
    offered_at timestamptz not null,
    primary key (channel, provider)
);

insert into tocsin.provider (channel, provider, offered_at)
select c.channel, p.provider, coalesce(c.offered_at, clock_timestamp())
from tocsin.channel c
cross join unnest(c.providers) p (provider);

alter table tocsin.channel drop column providers, drop column offered_at;
