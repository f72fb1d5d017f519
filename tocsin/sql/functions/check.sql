-- What may come in: each refusal names the argument (as COLUMN, which the HTTP API reports as the field) and the cure.

create or replace function tocsin.refuse(_field text, _message text, _hint text) returns void
language plpgsql
as $$
begin
    raise exception using errcode = 'TC004', column = _field, message = _message, hint = _hint;
end
$$;

-- Whether nothing is wrong with an event's content. Each call asks this first, and the planner puts it in the place of
-- the call. plpgsql prepares an expression anew in each transaction, each of its functions with a look at who may call
-- it: so there are as few as can be. The backslashes are doubled for a caller who has standard_conforming_strings off.
create or replace function tocsin.content_fine(
    _title text,
    _body text,
    _body_html text,
    _action_url text,
    _metadata jsonb,
    _initiator text
) returns boolean
-- not immutable: pg_column_size() isn't, and it would be called in earnest
language sql stable
as $$
    select length(_title) <= 500
        and _title ~ '^[^[:cntrl:]]*[^[:cntrl:][:space:]][^[:cntrl:]]*$'
        and length(_body) <= 100000
        and _body !~ E'[\\u0001-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f]'
        and (_body_html is null or length(_body_html) <= 200000)
        and (
            _action_url is null
            or (
                length(_action_url) <= 2000
                and _action_url ~ E'^(https?://[^/\\\\?#@[:space:][:cntrl:]]+([/?#][^\\\\[:space:][:cntrl:]]*)?|/([^/\\\\[:space:][:cntrl:]][^\\\\[:space:][:cntrl:]]*)?)$'
            )
        )
        and _metadata @> '{}'
        and pg_column_size(_metadata) <= 65536
        and (_initiator is null or _initiator ~ '^.{1,200}$')
$$;

-- What is wrong with it then, as refuse() says it.
drop function if exists tocsin.content_fault(text, text, text, text, jsonb, text, text);
create or replace function tocsin.content_fault(
    _title text,
    _body text,
    _body_html text,
    _action_url text,
    _metadata jsonb,
    _initiator text
) returns text[]
language sql stable
as $$
    select case
        when _title is null or length(_title) > 500 or _title !~ '^[^[:cntrl:]]*[^[:cntrl:][:space:]][^[:cntrl:]]*$' then
            case
                when _title is null or _title !~ '[^[:space:]]' then
                    array['title', 'title is empty', 'Say in one line what happened.']
                when length(_title) > 500 then
                    array['title', 'title is longer than 500 characters', 'Move the details into the body.']
                else
                    array['title', 'title has a line break or a control character', 'A title is one line of plain text.']
            end
        when _body is null then
            array['body', 'body is null', 'Leave it out, or pass an empty string.']
        when length(_body) > 100000 then
            array['body', 'body is longer than 100,000 characters', 'Link to the full text with action_url.']
        when _body ~ E'[\\u0001-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f]' then
            array['body', 'body has control characters', 'Only line breaks and tabs are allowed in plain text.']
        when length(_body_html) > 200000 then
            array['body_html', 'body_html is longer than 200,000 characters', 'Link to the full text with action_url.']
        when length(_action_url) > 2000 then
            array['action_url', 'action_url is longer than 2,000 characters', 'Use a shorter link.']
        when _action_url !~ E'^(https?://[^/\\\\?#@[:space:][:cntrl:]]+([/?#][^\\\\[:space:][:cntrl:]]*)?|/([^/\\\\[:space:][:cntrl:]][^\\\\[:space:][:cntrl:]]*)?)$' then
            array['action_url', 'action_url is neither a path nor an http(s) address',
                'Give a path like /forums/7, or an absolute https:// address without a user name.']
        when _metadata is null or jsonb_typeof(_metadata) <> 'object' then
            array['metadata', 'metadata is not a JSON object', 'Pass an object such as {"post_id": 12}.']
        when pg_column_size(_metadata) > 65536 then
            array['metadata', 'metadata is larger than 64 kB', 'Keep ids in it, not documents.']
        when length(_initiator) not between 1 and 200 then
            array['initiator', 'initiator is not 1 to 200 characters long', 'Pass the id of the person who caused the event, or null.']
    end
$$;

create or replace function tocsin.recipients_fault(_recipients text[]) returns text[]
language sql stable
as $$
    select case
        when array_ndims(_recipients) > 1 then
            array['recipients', 'recipients has more than one dimension', 'Pass a flat array of ids such as array[''alice''].']
        when _recipients is null or array_position(_recipients, null) is not null then
            array['recipients', 'recipients is null or has a null in it', 'Pass an array of ids such as array[''alice''].']
    end
$$;

create or replace function tocsin.check_address(_email text) returns void
language plpgsql
as $$
begin
    if length(_email) > 254 or _email !~ '^[^@\s[:cntrl:]<>(),;:\\"\[\]]+@[^@\s[:cntrl:]<>(),;:\\"\[\]]+$' then
        perform tocsin.refuse('email', 'email is not an address', 'Pass one address such as alice@example.com, without a name or brackets.');
    end if;
end
$$;

create or replace function tocsin.check_recipient(_id text, _email text, _name text, _locale text, _timezone text) returns void
language plpgsql
as $$
begin
    if _id is null or length(_id) not between 1 and 200 or _id ~ '[[:cntrl:]]' then
        perform tocsin.refuse('id', 'id is not 1 to 200 characters of text', 'Pass the id by which your app knows the person.');
    end if;
    perform tocsin.check_address(_email);
    if length(_name) > 200 or _name ~ '[[:cntrl:]]' then
        perform tocsin.refuse('name', 'name is longer than 200 characters or has a control character', 'A name is one line of plain text.');
    end if;
    if _locale !~ '^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*$' then
        perform tocsin.refuse('locale', 'locale is not a language tag', 'Pass a BCP 47 tag such as en or pt-BR.');
    end if;
    if _timezone is not null and not exists (select from tocsin.timezone z where z.name = _timezone) then
        perform tocsin.refuse('timezone', format('timezone %s is not known', quote_literal(left(_timezone, 60))), 'Pass an IANA name such as Europe/Rome.');
    end if;
end
$$;

-- The catalogue's nearest names, by the share of letter pairs in common (no extension is needed for it).
create or replace function tocsin.nearest_event_types(_event_type text) returns text
language sql stable
as $$
    with wanted as (
        select array(
            select distinct substr(lower(_event_type), i, 2)
            from generate_series(1, length(_event_type) - 1) i
        ) as pairs
    ),
    known as (
        select
            t.event_type,
            array(
                select distinct substr(t.event_type, i, 2)
                from generate_series(1, length(t.event_type) - 1) i
            ) as pairs
        from tocsin.event_type t
        where t.retired_at is null
    ),
    near as (
        select k.event_type
        from known k, wanted w
        order by
            (select count(*) from unnest(k.pairs) p where p = any (w.pairs))::float
                / greatest(cardinality(k.pairs) + cardinality(w.pairs), 1) desc,
            k.event_type
        limit 3
    )
    select string_agg(event_type, ', ') from near
$$;

create or replace function tocsin.refuse_event_type(_event_type text) returns void
language plpgsql
as $$
begin
    raise exception using
        errcode = 'TC001',
        column = 'event_type',
        message = format('unknown event type %s', quote_nullable(left(_event_type, 100))),
        hint = format('The nearest known ones: %s. "tocsin event-types list" shows all.', tocsin.nearest_event_types(coalesce(left(_event_type, 100), '')));
end
$$;
