-- Creates the unknown ones of [{"at", "id", "email", "name", "locale", "timezone", "avatar_url"}], and leaves the known ones as they are;
-- `at` is the position in the caller's own list, for errors. Returns how many were created.
create or replace function tocsin.create_missing_recipients(_people jsonb) returns integer
language plpgsql
as $$
declare
    _person record;
    _created integer;
    _field text;
    _message text;
    _hint text;
begin
    for _person in
        select p.*
        from jsonb_to_recordset(_people) p (at integer, id text, email text, name text, locale text, timezone text, avatar_url text)
        where not exists (select from tocsin.recipient r where r.recipient_id = p.id)
    loop
        perform tocsin.check_recipient(_person.id, _person.email, _person.name, _person.locale, _person.timezone, _person.avatar_url);
    end loop;
    insert into tocsin.recipient (recipient_id, email, name, locale, timezone, avatar_url)
    select distinct on (p.id)
        p.id,
        p.email,
        p.name,
        p.locale,
        p.timezone,
        nullif(p.avatar_url, '')
    from jsonb_to_recordset(_people) p (at integer, id text, email text, name text, locale text, timezone text, avatar_url text)
    where not exists (select from tocsin.recipient r where r.recipient_id = p.id)
    -- in the same order in each call, so that two fan-outs can't deadlock
    order by p.id, p.at
    on conflict do nothing;
    get diagnostics _created = row_count;
    return _created;
exception when sqlstate 'TC004' then
    get stacked diagnostics _field = column_name, _message = message_text, _hint = pg_exception_hint;
    perform tocsin.raise_invalid(format('recipients[%s].%s', _person.at, _field), _message, _hint);
end
$$;
