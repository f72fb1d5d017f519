-- A publication for all tables refuses to update or delete rows of a table that has no primary key, unless the whole row
-- identifies itself. A key would be one more index to write on the way of each notify(); this costs nothing where nothing
-- is published.
alter table tocsin.ending replica identity full;
alter table tocsin.inbox_change replica identity full;
alter table tocsin.lane replica identity full;
alter table tocsin.unread_delta replica identity full;

-- Days become hours: see tocsin.duration().
update tocsin.event_type t
set time_to_live = make_interval(secs => extract(epoch from t.time_to_live)::float8)
where extract(day from t.time_to_live) <> 0;
update tocsin.event_type t
set delays = (
    select jsonb_object_agg(d.channel, make_interval(secs => extract(epoch from d.delay::interval)::float8)::text)
    from jsonb_each_text(t.delays) d (channel, delay)
)
where t.delays <> '{}';
