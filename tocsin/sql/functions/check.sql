-- What may come in: each refusal names the argument (as COLUMN, which the HTTP API reports as the field) and the cure.

create or replace function tocsin.refuse(_field text, _message text, _hint text) returns void
language plpgsql
as $$
begin
    raise exception using errcode = 'TC004', column = _field, message = _message, hint = _hint;
end
$$;

create or replace function tocsin.check_content(
    _title text,
    _body text,
    _body_html text,
    _action_url text,
    _metadata jsonb,
    _initiator text,
    _idempotency_key text
) returns void
language plpgsql
as $$
begin
    if _title is null or _title !~ '\S' then
        perform tocsin.refuse('title', 'title is empty', 'Say in one line what happened.');
    elsif length(_title) > 500 then
        perform tocsin.refuse('title', 'title is longer than 500 characters', 'Move the details into the body.');
    elsif _title ~ '[[:cntrl:]]' then
        perform tocsin.refuse('title', 'title has a line break or a control character', 'A title is one line of plain text.');
    end if;
    if _body is null then
        perform tocsin.refuse('body', 'body is null', 'Leave it out, or pass an empty string.');
    elsif length(_body) > 100000 then
        perform tocsin.refuse('body', 'body is longer than 100,000 characters', 'Link to the full text with action_url.');
    elsif _body ~ '[\u0001-\u0008\u000b\u000c\u000e-\u001f\u007f]' then
        perform tocsin.refuse('body', 'body has control characters', 'Only line breaks and tabs are allowed in plain text.');
    end if;
    if length(_body_html) > 200000 then
        perform tocsin.refuse('body_html', 'body_html is longer than 200,000 characters', 'Link to the full text with action_url.');
    end if;
    if length(_action_url) > 2000 then
        perform tocsin.refuse('action_url', 'action_url is longer than 2,000 characters', 'Use a shorter link.');
    elsif _action_url !~ '^(https?://[^/\\?#@\s]+([/?#][^\s\\]*)?|/([^/\\\s][^\s\\]*)?)$' or _action_url ~ '[[:cntrl:]]' then
        perform tocsin.refuse('action_url', 'action_url is neither a path nor an http(s) address',
            'Give a path like /forums/7, or an absolute https:// address without a user name.');
    end if;
    if _metadata is null or jsonb_typeof(_metadata) <> 'object' then
        perform tocsin.refuse('metadata', 'metadata is not a JSON object', 'Pass an object such as {"post_id": 12}.');
    elsif pg_column_size(_metadata) > 65536 then
        perform tocsin.refuse('metadata', 'metadata is larger than 64 kB', 'Keep ids in it, not documents.');
    end if;
    if _initiator is not null and length(_initiator) not between 1 and 200 then
        perform tocsin.refuse('initiator', 'initiator is not 1 to 200 characters long', 'Pass the id of the person who caused the event, or null.');
    end if;
    if _idempotency_key is not null and length(_idempotency_key) not between 1 and 255 then
        perform tocsin.refuse('idempotency_key', 'idempotency_key is not 1 to 255 characters long', 'A UUID will do.');
    end if;
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

create or replace function tocsin.known_event_type(_event_type text) returns tocsin.event_type
language plpgsql stable
as $$
declare
    _found tocsin.event_type;
begin
    select t.* into _found
    from tocsin.event_type t
    where t.event_type = _event_type
        and t.retired_at is null;
    if not found then
        raise exception using
            errcode = 'TC001',
            column = 'event_type',
            message = format('unknown event type %s', quote_nullable(left(_event_type, 100))),
            hint = format('The nearest known ones: %s. "tocsin event-types list" shows all.', tocsin.nearest_event_types(coalesce(left(_event_type, 100), '')));
    end if;
    return _found;
end
$$;
