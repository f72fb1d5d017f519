-- Checks of arguments: each error names the argument (as COLUMN, which the HTTP API returns as the field) and the cure.

create or replace function tocsin.raise_invalid(_field text, _message text, _hint text) returns void
language plpgsql
as $$
begin
    raise exception using errcode = 'TC004', column = _field, message = _message, hint = _hint;
end
$$;

-- The classes of characters are written out, so that they don't depend on the database's locale. The backslashes are
-- doubled for a caller who has standard_conforming_strings off.

-- Whether a text has a line break or a control character: C0, DEL, C1 with U+0085, U+2028, U+2029. No field of one line may.
create or replace function tocsin.has_line_break(_text text) returns boolean
language plpgsql immutable strict parallel safe
as $$
begin
    return _text ~ E'[\\u0001-\\u001f\\u007f-\\u009f\\u2028\\u2029]';
end
$$;

-- Whether a text has a character that a reader can see. These can't be seen: controls, white space, what Unicode calls
-- Default_Ignorable_Code_Point (zero-width characters, marks of direction, the byte order mark, Hangul fillers, variation
-- selectors, tags), a Braille cell without dots (U+2800), and combining marks by themselves.
create or replace function tocsin.is_visible(_text text) returns boolean
language plpgsql immutable strict parallel safe
as $$
begin
    return _text ~ E'[^\\u0001-\\u0020\\u007f-\\u00a0\\u00ad\\u0300-\\u036f\\u061c\\u115f\\u1160\\u1680\\u17b4\\u17b5'
        '\\u180b-\\u180f\\u1ab0-\\u1aff\\u1dc0-\\u1dff\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u20d0-\\u20ff\\u2800'
        '\\u3000\\u3164\\ufe00-\\ufe0f\\ufe20-\\ufe2f\\ufeff\\uffa0\\ufff0-\\ufffb\\U0001bca0-\\U0001bca3'
        '\\U0001d173-\\U0001d17a\\U000e0000-\\U000e0fff]';
end
$$;

-- Whether a text is one line, and not an empty one.
create or replace function tocsin.is_line(_text text) returns boolean
language plpgsql immutable strict parallel safe
as $$
begin
    return not tocsin.has_line_break(_text) and tocsin.is_visible(_text);
end
$$;

-- Returns a name that people read, such as that of a device or an event type; raises an error where it is not valid.
create or replace function tocsin.checked_label(_label text) returns text
language plpgsql immutable
as $$
begin
    if length(_label) > 100 or not tocsin.is_line(_label) then
        perform tocsin.raise_invalid('label', 'label is not 1 to 100 characters in one line', 'A label is one line of plain text.');
    end if;
    return _label;
end
$$;

-- Whether a text is a path on the app's own host, or an http(s) address that browsers read in one way only (RFC 3986, and the
-- URL Standard of WHATWG where the two differ). engine/text.py has the same rule for links in HTML.
create or replace function tocsin.is_web_address(_address text) returns boolean
language plpgsql immutable strict parallel safe
as $$
declare
    _host text := substring(_address from '(?i)^https?://([^/?#:]+)');
    _port text := substring(_address from '(?i)^https?://[^/?#:]+:([0-9]{1,5})([/?#]|$)');
begin
    -- no backslash, white space, control character, or mark of direction
    if _address ~
        E'[\\\\\\u0001-\\u0020\\u007f-\\u00a0\\u1680\\u2000-\\u200a\\u200e\\u200f\\u2028-\\u202f\\u205f\\u2066-\\u2069\\u3000\\ufeff]'
    then
        return false;
    end if;
    if _host is null then
        return _address ~ '^/([^/]|$)';
    end if;
    return substr(_address, length(substring(_address from '(?i)^https?://')) + length(_host) + 1) ~ '^(:[0-9]{1,5})?([/?#]|$)'
        and coalesce(_port::integer, 1) between 1 and 65535
        -- letters of any script, digits, hyphens and underscores; not what Unicode turns into a separator, such as U+FF0F
        and _host !~
            E'[^A-Za-z0-9_.\\u00c0-\\u02d7\\u02de-\\u034e\\u0350-\\u061b\\u061d-\\u115e\\u1161-\\u167f\\u1681-\\u17b3'
            '\\u17b6-\\u180a\\u1810-\\u1fff\\u2c00-\\u2fff\\u3005-\\u3163\\u3165-\\ud7ff\\uf900-\\ufaff\\U00010000-\\U0003ffff-]'
        and _host !~ '^[.]|[.][.]'
        and (_host !~ '(^|[.])[0-9]+[.]?$' or _host ~ '^((25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])([.]|$)){4}$');
end
$$;

-- Whether an event's content is valid. Each call asks this first, and the planner inlines it. plpgsql prepares an expression
-- again in each transaction, and checks for each of its functions who may call it, so there are as few functions as
-- possible. The comparisons with ASCII ranges accept most content without a call.
create or replace function tocsin.is_valid_content(
    _title text,
    _body text,
    _body_html text,
    _action_url text,
    _metadata jsonb,
    _initiator text
) returns boolean
-- not immutable: pg_column_size() isn't, so the function would not be inlined
language sql stable
as $$
    select length(_title) <= 500
        and (_title ~ '^[ -~]*[!-~][ -~]*$' or tocsin.is_line(_title))
        and length(_body) <= 100000
        and _body !~ E'[\\u0001-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f]'
        and (_body_html is null or length(_body_html) <= 200000)
        and (
            _action_url is null
            or (
                length(_action_url) <= 2000
                and (
                    _action_url ~ '^(https://([a-z0-9-]+[.])+[a-z]+)?(/[!-.0-[^-~][!-[^-~]*|/)$'
                    or tocsin.is_web_address(_action_url)
                )
            )
        )
        and _metadata @> '{}'
        and pg_column_size(_metadata) <= 65536
        and (_initiator is null or (length(_initiator) <= 200 and (_initiator ~ '^[ -~]*[!-~][ -~]*$' or tocsin.is_line(_initiator))))
$$;

-- What is wrong with content that is not valid, as the arguments of raise_invalid().
create or replace function tocsin.find_content_fault(
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
        when _title is null or length(_title) > 500 or not tocsin.is_line(_title) then
            case
                when _title is null or not tocsin.is_visible(_title) then
                    array['title', 'title is empty', 'Describe in one line what happened, with characters that can be seen.']
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
        when not tocsin.is_web_address(_action_url) then
            array['action_url', 'action_url is neither a path nor an http(s) address',
                'Give a path like /forums/7, or an absolute address like https://example.com/forums/7: no user name, a port up to 65535, '
                || 'a host name or an IPv4 address, no spaces and no backslashes.']
        when _metadata is null or jsonb_typeof(_metadata) <> 'object' then
            array['metadata', 'metadata is not a JSON object', 'Pass an object such as {"post_id": 12}.']
        when pg_column_size(_metadata) > 65536 then
            array['metadata', 'metadata is larger than 64 kB', 'Keep ids in it, not documents.']
        when length(_initiator) > 200 or not tocsin.is_line(_initiator) then
            array['initiator', 'initiator is not 1 to 200 characters in one line', 'Pass the id of the person who caused the event, or null.']
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
        when cardinality(_recipients) > 100000 then
            array['recipients', 'recipients has more than 100,000 ids', 'Notify them in several calls, or let them follow a topic.']
    end
$$;

create or replace function tocsin.check_address(_email text) returns void
language plpgsql
as $$
declare
    _fault text := tocsin.address_fault(_email);
begin
    if _fault is not null then
        perform tocsin.raise_invalid('email', 'email is not an address: ' || _fault, 'Pass one address such as alice@example.com, without a name or brackets.');
    end if;
end
$$;

create or replace function tocsin.check_recipient(
    _id text,
    _email text,
    _name text,
    _locale text,
    _timezone text,
    _avatar_url text
) returns void
language plpgsql
as $$
begin
    if _id is null or length(_id) > 200 or not tocsin.is_line(_id) then
        perform tocsin.raise_invalid('id', 'id is not 1 to 200 characters in one line', 'Pass the id by which your app knows the person.');
    end if;
    perform tocsin.check_address(_email);
    if length(_name) > 200 or tocsin.has_line_break(_name) then
        perform tocsin.raise_invalid('name', 'name is longer than 200 characters or has a control character', 'A name is one line of plain text.');
    end if;
    if _locale !~ '^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*$' then
        perform tocsin.raise_invalid('locale', 'locale is not a language tag', 'Pass a BCP 47 tag such as en or pt-BR.');
    end if;
    if _timezone is not null and not exists (select from tocsin.timezone z where z.name = _timezone) then
        perform tocsin.raise_invalid('timezone', format('timezone %s is not known', quote_literal(left(_timezone, 60))), 'Pass an IANA name such as Europe/Rome.');
    end if;
    if length(_avatar_url) > 2000 then
        perform tocsin.raise_invalid('avatar_url', 'avatar_url is longer than 2000 characters', 'Pass the address of a picture, not the picture.');
    end if;
    if _avatar_url <> '' and not tocsin.is_web_address(_avatar_url) then
        perform tocsin.raise_invalid(
            'avatar_url',
            'avatar_url is neither a path nor an http(s) address',
            'Pass the address of a picture, such as https://example.com/alice.png; empty to remove it.'
        );
    end if;
end
$$;

-- The names in the catalogue that are nearest to one, by the share of common letter pairs (no extension is needed).
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

create or replace function tocsin.raise_unknown_event_type(_event_type text) returns void
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
