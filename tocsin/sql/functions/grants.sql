-- An app's role may call these functions and do nothing else in the schema: it sees no table.
do $$
begin
    -- asked first: an owner that may not create roles can still migrate where somebody did it for them
    if not exists (select from pg_roles where rolname = 'tocsin_app') then
        create role tocsin_app nologin;
    end if;
exception when duplicate_object or unique_violation then
    null;
end
$$;

revoke all on schema tocsin, tocsin_queue from public;
revoke all on all routines in schema tocsin from public;
grant usage on schema tocsin to tocsin_app;
grant execute on function
    tocsin.notify(text, text[], text, text, text, jsonb, text, text, text, timestamptz),
    tocsin.notify_topic(text, text, text, text, text, jsonb, text, text, text, timestamptz, boolean),
    tocsin.subscribe(text, text, text),
    tocsin.unsubscribe(text, text),
    tocsin.notify_email(text, text, text, text, text, jsonb, text, text, text, timestamptz),
    tocsin.claim_email(text, text),
    tocsin.cancel(bigint),
    tocsin.upsert_recipient(text, text, text, text, text),
    tocsin.unread_count(text)
to tocsin_app;
