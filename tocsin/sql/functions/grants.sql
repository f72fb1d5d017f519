-- Rights of the roles: docs/adr/0040-roles.md. The roles themselves are created by `tocsin migrate` (queries/role.sql).

revoke all on schema tocsin, tocsin_queue from public;
revoke all on all routines in schema tocsin, tocsin_queue from public;

-- An app's role may call these functions and do nothing else in the schema: it sees no table.
grant usage on schema tocsin to tocsin_app;
grant execute on function
    tocsin.notify(
        text, text[], text, text, text, jsonb, text, text, text, timestamptz, text, boolean, jsonb, jsonb, text
    ),
    tocsin.notify_topic(
        text, text, text, text, text, jsonb, text, text, text, timestamptz, boolean, text, boolean, jsonb, jsonb, text
    ),
    tocsin.subscribe(text, text, text),
    tocsin.unsubscribe(text, text),
    tocsin.notify_email(
        text, text, text, text, text, jsonb, text, text, text, timestamptz, text, boolean, jsonb, jsonb, text
    ),
    tocsin.claim_email(text, text),
    tocsin.cancel(bigint),
    tocsin.withdraw(text, text),
    tocsin.mark_read(text, text),
    tocsin.inbox(text, integer, text, boolean),
    tocsin.actions_since(bigint),
    tocsin.upsert_recipient(text, text, text, text, text, text),
    tocsin.unread_count(text),
    tocsin.erase_recipient(text),
    tocsin.register_push_token(text, text, text, text, text),
    tocsin.register_web_push(text, jsonb),
    tocsin.why(text, bigint, integer)
to tocsin_app;

-- `serve` and `worker` read and write rows, and call functions. They can't create or change objects, and they can't write
-- which migrations were applied.
grant usage on schema tocsin, tocsin_queue to tocsin_service;
grant select, insert, update, delete on all tables in schema tocsin, tocsin_queue to tocsin_service;
revoke insert, update, delete on tocsin.migration from tocsin_service;
grant usage, select on all sequences in schema tocsin, tocsin_queue to tocsin_service;
grant execute on all routines in schema tocsin, tocsin_queue to tocsin_service;

do $$
declare
    _table regclass;
begin
    -- Before PostgreSQL 17 only the owner of a table may vacuum it; there it is left to autovacuum.
    if current_setting('server_version_num')::int >= 170000 then
        for _table in
            select c.oid
            from pg_class c
            where c.relnamespace = 'tocsin'::regnamespace
                and c.relname in ('unread_delta', 'event_queue', 'lease')
        loop
            execute format('grant maintain on %s to tocsin_service', _table);
        end loop;
    end if;
end
$$;

do $$
declare
    _function regprocedure;
begin
    -- Where the owner may set this, a failing call is logged without its statement, whose literals people wrote.
    if has_parameter_privilege('log_min_error_statement', 'SET') then
        for _function in
            select p.oid
            from pg_proc p
            where p.pronamespace = 'tocsin'::regnamespace
                and p.prosecdef
        loop
            execute format('alter function %s set log_min_error_statement = panic', _function);
        end loop;
    end if;
end
$$;
