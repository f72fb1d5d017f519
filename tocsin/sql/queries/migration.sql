-- name: lock_migration#
-- Only one migration runs at a time. The lock ends with the transaction, so a crash leaves none. An advisory lock would do the
-- same, but any login may take one.
lock table tocsin.migration in share row exclusive mode;

-- name: migration_blockers
-- Sessions that hold a lock which keeps this one from locking the table.
select
    a.pid,
    a.usename::text,
    a.application_name
from pg_locks l
join pg_stat_activity a using (pid)
where l.relation = to_regclass('tocsin.migration')
    and l.granted
    and l.mode not in ('AccessShareLock', 'RowShareLock')
    and l.pid <> pg_backend_pid();

-- name: lock_holders
-- Transactions of other sessions that hold locks on Tocsin's tables; when each began is hidden from roles that may not see it.
select
    l.virtualtransaction,
    a.pid,
    a.usename::text,
    a.application_name,
    extract(epoch from clock_timestamp() - a.xact_start)::float8
from pg_stat_activity a
join (
    select distinct k.pid, k.virtualtransaction
    from pg_locks k
    join pg_class c on c.oid = k.relation
    join pg_namespace n on n.oid = c.relnamespace
    where k.granted
        and k.database = (select d.oid from pg_database d where d.datname = current_database())
        and n.nspname in ('tocsin', 'tocsin_queue')
) l using (pid)
where a.pid <> pg_backend_pid()
order by a.xact_start, a.pid;

-- name: stay_owner
-- Acts as another role until the session ends, without a timeout: statements follow that can't be in one transaction.
select
    set_config('role', :owner, false),
    set_config('lock_timeout', '0', false),
    set_config('statement_timeout', '0', false);

-- name: stay_self
-- Acts as the session's own role again.
select set_config('role', 'none', false);

-- name: invalid_indexes
-- Statements that drop the indexes which an interrupted attempt left invalid.
select format('drop index concurrently tocsin.%I', c.relname)
from pg_index i
join pg_class c on c.oid = i.indexrelid
where c.relnamespace = 'tocsin'::regnamespace
    and not i.indisvalid;

-- name: other_processes
-- Processes of another version that reported in the last minute.
select
    p.kind,
    p.host,
    p.pid,
    p.version
from tocsin.process p
where p.version <> :version
    and p.reported_at > clock_timestamp() - interval '60 seconds'
order by p.kind, p.host, p.pid;

-- name: create_schemas#
-- Creates the schemas where they are missing.
do $$
begin
    if to_regnamespace('tocsin') is null then
        create schema tocsin;
    end if;
    if to_regnamespace('tocsin_queue') is null then
        create schema tocsin_queue;
    end if;
end
$$;

-- name: create_migration#
-- What was applied, with a checksum of each file.
create table if not exists tocsin.migration (
    name text primary key,
    checksum text not null,
    applied_at timestamptz not null default now()
);

-- name: drop_schemas#
-- Drops both schemas with all that is in them.
drop schema tocsin, tocsin_queue cascade;

-- name: installation_settings
-- The role and the settings that an installation changes until it has ended.
select
    s.name,
    current_setting(s.name)
from unnest(array[
    'role', 'search_path', 'client_min_messages', 'check_function_bodies', 'lock_timeout', 'statement_timeout',
    'standard_conforming_strings'
]) s (name);

-- name: configure_installation
-- Sets what the files rely on until the transaction ends. Functions call functions of files that come later.
select
    set_config('search_path', 'pg_catalog, pg_temp', true),
    set_config('client_min_messages', 'warning', true),
    set_config('check_function_bodies', 'off', true),
    set_config('lock_timeout', :lock_timeout, true),
    set_config('statement_timeout', '0', true),
    set_config('standard_conforming_strings', 'on', true);

-- name: restore_setting
-- Sets the role or a setting until the transaction ends.
select set_config(:name, :value, true);

-- name: find_migration
-- A row if the table is there: whether this role may read it.
select
    has_schema_privilege(n.oid, 'usage')
        and has_table_privilege(c.oid, 'select')
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'tocsin'
    and c.relname = 'migration';

-- name: is_unreleased
-- Whether a version from before the first release made the tables: its second migration of many.
select exists (
    select
    from tocsin.migration m
    where m.name = '0002_device.sql'
);

-- name: applied_migrations
-- Everything that was applied, by name.
select
    name,
    checksum
from tocsin.migration;

-- name: record_migration!
-- Records a migration as applied, or another checksum of it.
insert into tocsin.migration as m (name, checksum)
values (:name, :checksum)
on conflict (name) do update
set checksum = excluded.checksum,
    applied_at = now()
where m.checksum <> excluded.checksum;

-- name: pin_queue_functions
-- Procrastinate's functions use unqualified names: sets their schema, so that they run in any session.
select format('alter function %s set search_path = tocsin_queue, pg_temp', p.oid::regprocedure)
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
where n.nspname = 'tocsin_queue';

-- name: reset_foreign_xids
-- Resets transaction ids after a restore into another cluster.
select tocsin.reset_foreign_xids();

-- name: refresh_default_decisions!
-- Stores the decisions as this version makes them.
update tocsin.event_type t
set default_decisions = u.decisions
from tocsin.event_type o
cross join lateral (select tocsin.default_decisions(o) as decisions) u
where o.event_type = t.event_type
    and t.default_decisions is distinct from u.decisions;

-- name: apply_catalogue
-- Adds or changes the event types of a catalogue; returns how many there are.
select tocsin.apply_catalogue(:catalogue);

-- name: apply_default_catalogue
-- Only into a new database: an app's own catalogue stays.
select tocsin.apply_catalogue(:catalogue)
where not exists (select from tocsin.event_type);
