-- The checks of `tocsin doctor`. Each statement works on an empty database too, and for a role without rights on Tocsin's
-- tables, except for those that say so.

-- name: server
-- The server and this session.
select
    current_setting('server_version') as version,
    current_database() as database,
    current_user::text as role,
    pg_backend_pid() as pid;

-- name: clock
-- The server's clock, in seconds since 1970.
select extract(epoch from clock_timestamp())::float8;

-- name: session_settings
-- What our sessions rely on, as it is now.
select
    s.name,
    current_setting(s.name) as value
from unnest(array['DateStyle', 'IntervalStyle', 'TimeZone', 'client_encoding', 'transaction_isolation', 'transaction_read_only', 'search_path', 'statement_timeout']) s (name);

-- name: app_settings
-- Settings of the database, or of a role in it, that keep an app from notifying.
select
    coalesce('the role ' || r.rolname, 'the database ' || current_database()) as owner,
    c.setting
from pg_db_role_setting s
left join pg_roles r on r.oid = s.setrole
cross join lateral unnest(s.setconfig) c (setting)
where s.setdatabase in (0, (select d.oid from pg_database d where d.datname = current_database()))
    and c.setting in ('default_transaction_read_only=on', 'default_transaction_read_only=true');

-- name: notify
-- Sends a NOTIFY that only this check listens for.
select pg_notify('tocsin_doctor', :payload);

-- name: listen
-- Listens for it.
listen tocsin_doctor;

-- name: notification_queue
-- The share of the queue of NOTIFY that is full.
select pg_notification_queue_usage();

-- name: begin_write
-- Makes the next commit wait for the disk, and for a synchronous standby: a transaction id alone would not.
select pg_logical_emit_message(true, 'tocsin', 'doctor')::text;

-- name: write
-- Writes a row that is rolled back; needs rights on the tables.
insert into tocsin.idempotency (caller, key, fingerprint)
values ('doctor', gen_random_uuid()::text, decode(repeat('00', 2000), 'hex'));

-- name: storage
-- What keeps the database healthy.
select
    current_setting('fsync')::boolean as durable,
    current_setting('autovacuum')::boolean and current_setting('track_counts')::boolean as vacuums,
    age(d.datfrozenxid)::bigint as xid_age,
    d.datcollversion <> pg_database_collation_actual_version(d.oid) as collation_changed,
    array(
        select c.relname::text
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        where n.nspname in ('tocsin', 'tocsin_queue')
            and c.relkind = 'r'
            and c.relpersistence = 'u'
            -- unlogged by design: what they lose by a crash is written again within seconds
            and c.relname not in ('process', 'send_hold', 'send_rate')
        order by c.relname
    ) as unlogged
from pg_database d
where d.datname = current_database();

-- name: zones
-- The offsets of all time zones at four moments of the coming year, in seconds; null where Tocsin's own list lacks the zone.
select
    z.name,
    array_agg(extract(epoch from (m.at at time zone z.name) - (m.at at time zone 'UTC'))::integer order by m.at) as offsets
from pg_timezone_names z
cross join unnest(:moments::timestamptz[]) m (at)
where z.name !~ '^(posix|right|SystemV|Factory|localtime|posixrules)'
group by z.name
order by z.name;

-- name: unknown_zones
-- Zones of the server that the last migration did not list; needs rights on the tables.
select count(*)
from pg_timezone_names z
where z.name !~ '^(posix|right|SystemV|Factory|localtime|posixrules)'
    and not exists (select from tocsin.timezone t where t.name = z.name);

-- name: has_foreign_xids
-- Whether rows carry transaction ids that this cluster has not reached: those of a restore; needs rights on the tables.
select
    exists (select from tocsin.unread_counter c where c.folded_before > s.next)
    or exists (select from tocsin.unread_delta d where d.n <> 0 and d.xid > s.next)
    or exists (select from tocsin.event_queue l where l.xid > s.next)
from (select pg_snapshot_xmax(pg_current_snapshot()) as next) s;

-- name: rights
-- What is wrong with roles and rights: the level, a sentence, the cure.
with me as (
    select r.oid, r.rolname, r.rolsuper
    from pg_roles r
    where r.rolname = current_user
),
role as (
    select
        to_regrole('tocsin_app')::oid as app,
        to_regrole('tocsin_service')::oid as service,
        (select n.nspowner from pg_namespace n where n.nspname = 'tocsin') as owner
),
relation as (
    select c.oid, c.relname, c.relkind
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname in ('tocsin', 'tocsin_queue')
        and c.relkind in ('r', 'p')
),
function as (
    select p.oid, p.proname, p.prosecdef, p.proconfig
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'tocsin'
)
select
    'red' as level,
    format('The role %%s does not exist.', w.name) as sentence,
    'Run `tocsin migrate` as the owner of the schemas: it creates the role and grants its rights.' as cure
from unnest(array['tocsin_app', 'tocsin_service']) w (name)
where to_regrole(w.name) is null
union all
select
    'red',
    format('The role %%s of TOCSIN_DATABASE_URL may not use Tocsin''s tables.', me.rolname),
    format('Run as an administrator: grant tocsin_service to %%I;', me.rolname)
from me, role
where role.service is not null
    and not pg_has_role(me.oid, role.service, 'USAGE')
    and not pg_has_role(me.oid, role.owner, 'USAGE')
union all
select
    'yellow',
    format('%%s of TOCSIN_DATABASE_URL is a superuser.', me.rolname),
    'Let `serve` and `worker` use a login that is granted tocsin_service.'
from me
where me.rolsuper
union all
select
    'red',
    format('The schema tocsin belongs to the superuser %%s: functions that apps call would run with all rights.', o.rolname),
    'Run `tocsin migrate` once as a superuser: it gives the schemas to the role tocsin_owner.'
from role
join pg_roles o on o.oid = role.owner
where o.rolsuper
union all
select
    'red',
    format('tocsin_service lacks rights on %%s tables, such as %%s.', count(*), min(r.relname)),
    'Run `tocsin migrate` as the owner: it grants them again.'
from role, relation r
where role.service is not null
    and r.relname <> 'migration'
    and not (
        has_table_privilege(role.service, r.oid, 'SELECT')
        and has_table_privilege(role.service, r.oid, 'INSERT')
        and has_table_privilege(role.service, r.oid, 'UPDATE')
        and has_table_privilege(role.service, r.oid, 'DELETE')
    )
having count(*) > 0
union all
select
    'red',
    'tocsin_app may not execute notify(): apps can''t notify.',
    'Run `tocsin migrate` as the owner: it grants this again.'
from role
where role.app is not null
    and exists (select from function f where f.proname = 'notify')
    and not (
        has_schema_privilege(role.app, 'tocsin', 'USAGE')
        and coalesce((select bool_and(has_function_privilege(role.app, f.oid, 'EXECUTE')) from function f where f.proname = 'notify'), false)
    )
union all
select
    'red',
    format('Everyone may execute %%s functions of the schema tocsin, such as %%s().', count(*), min(f.proname)),
    'Run `tocsin migrate` as the owner: it revokes this again.'
from function f
where has_function_privilege('public', f.oid, 'EXECUTE')
having count(*) > 0
union all
select
    'red',
    format('%%s runs with its owner''s rights and without a search_path of its own: callers can redirect it.', min(f.proname)),
    'Run `tocsin migrate` as the owner: it sets the search_path again.'
from function f
where f.prosecdef
    and not coalesce(array_to_string(f.proconfig, ',') like '%%search_path=%%', false)
having count(*) > 0;

-- name: app_logins
-- Logins that may notify.
select r.rolname::text as name
from pg_roles r
where r.rolcanlogin
    and to_regrole('tocsin_app') is not null
    and pg_has_role(r.oid, to_regrole('tocsin_app'), 'MEMBER')
    and not r.rolsuper
order by r.rolname
limit 20;

-- name: publications
-- Publications that include Tocsin's tables, with those whose rows can't be updated because of it.
select
    p.pubname::text as name,
    p.puballtables as all_tables,
    array_remove(array_agg(
        case
            when (p.pubupdate or p.pubdelete)
                and (
                    c.relreplident = 'n'
                    or (
                        c.relreplident = 'd'
                        and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)
                    )
                )
            then c.relname::text
        end
    ), null) as refusing
from pg_publication p
join pg_publication_tables t on t.pubname = p.pubname
join pg_namespace n on n.nspname = t.schemaname
join pg_class c on c.relnamespace = n.oid and c.relname = t.tablename
where n.nspname in ('tocsin', 'tocsin_queue')
group by p.pubname, p.puballtables
order by p.pubname;

-- name: connections
-- Connections that are open and that are possible, for this role.
select
    current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer
        - coalesce(current_setting('reserved_connections', true)::integer, 0) as possible,
    (select count(*)::integer from pg_stat_activity a where a.backend_type = 'client backend') as used,
    case when r.rolconnlimit >= 0 then r.rolconnlimit end as role_limit,
    (select count(*)::integer from pg_stat_activity a where a.usename = current_user) as used_by_role,
    case when d.datconnlimit >= 0 then d.datconnlimit end as database_limit,
    (select count(*)::integer from pg_stat_activity a where a.datname = current_database()) as used_in_database
from pg_roles r
cross join pg_database d
where r.rolname = current_user
    and d.datname = current_database();

-- name: open_transactions
-- Transactions of this database that have been open for more than five minutes, the oldest first.
select
    a.pid::text as name,
    coalesce(a.usename::text, '?') as role,
    coalesce(nullif(a.application_name, ''), 'no name') as program,
    extract(epoch from clock_timestamp() - a.xact_start)::float8 as seconds,
    false as prepared
from pg_stat_activity a
where a.datname = current_database()
    and a.xact_start < clock_timestamp() - :longer_than
    and a.backend_type = 'client backend'
union all
select
    p.gid,
    p.owner::text,
    'prepared',
    extract(epoch from clock_timestamp() - p.prepared)::float8,
    true
from pg_prepared_xacts p
where p.database = current_database()
    and p.prepared < clock_timestamp() - :longer_than
order by seconds desc
limit 5;

-- name: replication
-- Standbys and replication slots. Roles without pg_read_all_stats see how many standbys there are, and no more.
select
    pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') as sees_standbys,
    current_setting('synchronous_standby_names') <> '' as needs_standby,
    current_setting('synchronous_commit') <> 'local' and current_setting('synchronous_commit') <> 'off' as waits,
    (select count(*)::integer from pg_stat_replication s where s.sync_state in ('sync', 'quorum')) as synchronous,
    (select count(*)::integer from pg_stat_replication s) as standbys,
    pg_current_wal_lsn()::text as position,
    (
        select array_agg(s.slot_name::text order by s.slot_name)
        from pg_replication_slots s
        where not s.active
            and s.wal_status is distinct from 'lost'
            and pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) > 1024 * 1024 * 1024
    ) as abandoned_slots;

-- name: late_standbys
-- Standbys that have not replayed what was written up to a position.
select coalesce(nullif(s.application_name, ''), 'no name') as name
from pg_stat_replication s
where s.replay_lsn < :position::pg_lsn
order by s.application_name;
