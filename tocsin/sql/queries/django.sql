-- name: upsert_recipients
-- Creates recipients or changes what is not null, in the order of their ids.
select count(tocsin.upsert_recipient(u.id, u.email, u.name, u.locale, u.timezone, u.avatar_url))
from unnest(:id::text[], :email::text[], :name::text[], :locale::text[], :timezone::text[], :avatar_url::text[])
    u (id, email, name, locale, timezone, avatar_url);

-- name: can_call
-- This session's role, and whether it may call the functions for apps.
select
    current_user::text,
    has_schema_privilege('tocsin', 'usage')
        and coalesce(
            (
                select bool_and(has_function_privilege(p.oid, 'execute'))
                from pg_proc p
                join pg_namespace n on n.oid = p.pronamespace
                where n.nspname = 'tocsin'
                    and p.proname in ('notify', 'upsert_recipient')
            ),
            false
        );

-- name: flush
-- Removes people, events and all that hangs on them. What belongs to the installation stays.
do $$
declare
    _tables text;
begin
    select string_agg(c.oid::regclass::text, ', ') into _tables
    from pg_class c
    where c.relnamespace = 'tocsin'::regnamespace
        and c.relkind = 'r'
        and c.relname not in (
            'migration', 'channel', 'provider', 'category', 'event_type', 'timezone', 'badge_push_progress',
            'delivery_minute_progress', 'action_counter', 'process', 'leader', 'api_key', 'ops_session', 'provider_token',
            'secret'
        );
    execute 'truncate ' || _tables;
end
$$;

-- name: why
-- What was decided for the newest notifications of a person, of an event, or of both.
select *
from tocsin.why(recipient => :recipient::text, event_id => :event_id::bigint, max_rows => :max_rows::integer);
