-- The options of notify(), notify_topic() and notify_email() that few calls use: subject, replaces, content, actions, unknown.

-- What is wrong with them, as the arguments of raise_invalid(); null where they are valid.
create or replace function tocsin.find_option_fault(
    _topic text,
    _subject text,
    _replaces boolean,
    _content jsonb,
    _actions jsonb,
    _unknown text
) returns text[]
language sql stable
as $$
    select coalesce(
        case
            -- a topic is checked by check_topic()
            when _subject is distinct from _topic and _subject !~ '^[A-Za-z0-9._:/-]{1,200}$' then
                array['subject', 'subject is not 1 to 200 characters of A-Z a-z 0-9 . _ : / -', 'Name the thing that it is about, such as forum.thread:42.']
            when _replaces is null then
                array['replaces', 'replaces is null', 'Pass true or false, or leave it out.']
            when _replaces and _subject is null then
                array['replaces', 'replaces is true without a subject', 'Pass the subject whose earlier notifications this one replaces.']
            when _unknown is null or _unknown not in ('error', 'create', 'skip') then
                array['unknown', format('unknown %s is not known', quote_nullable(left(_unknown, 60))), 'Use one of error, create, skip.']
            when coalesce(pg_column_size(_content), 0) + coalesce(pg_column_size(_actions), 0) > 65536 then
                array['content', 'content and actions are larger than 64 kB together', 'Link to the full text with action_url.']
        end,
        tocsin.find_texts_fault(_content, 'content', true),
        tocsin.find_actions_fault(_actions)
    )
$$;

-- What is wrong with a set of texts: the argument content, or one of its translations. _path names it in errors.
create or replace function tocsin.find_texts_fault(_texts jsonb, _path text, _is_content boolean) returns text[]
language plpgsql stable
as $$
declare
    _key text;
    _value jsonb;
    _fault text[];
begin
    if _texts is null then
        return null;
    elsif jsonb_typeof(_texts) <> 'object' then
        return array[_path, _path || ' is not a JSON object', 'Pass an object such as {"email": {"title": "Your invoice"}}.'];
    end if;
    for _key, _value in select k.key, k.value from jsonb_each(_texts) k loop
        if _key in ('email', 'push', 'chat') then
            _fault := tocsin.find_text_fields_fault(
                _value,
                _path || '.' || _key,
                case _key when 'email' then '{title,body,body_html}' when 'push' then '{title,body,data}' else '{body}' end::text[]
            );
        elsif _is_content and _key = 'translations' then
            _fault := tocsin.find_translations_fault(_value, _path || '.translations');
        elsif not _is_content and _key in ('title', 'body') then
            _fault := tocsin.find_text_fields_fault(jsonb_build_object(_key, _value), _path, array[_key]);
        else
            _fault := array[
                _path || '.' || left(_key, 60),
                format('%s has an unknown key %s', _path, quote_literal(left(_key, 60))),
                case when _is_content then 'Its keys are email, push, chat, translations.' else 'Its keys are title, body, email, push, chat.' end
            ];
        end if;
        if _fault is not null then
            return _fault;
        end if;
    end loop;
    return null;
end
$$;

-- What is wrong with the texts by language.
create or replace function tocsin.find_translations_fault(_translations jsonb, _path text) returns text[]
language plpgsql stable
as $$
declare
    _language text;
    _texts jsonb;
    _fault text[];
begin
    if jsonb_typeof(_translations) <> 'object' then
        return array[_path, _path || ' is not a JSON object', 'Pass an object such as {"de": {"title": "Neue Antwort"}}.'];
    end if;
    for _language, _texts in select t.key, t.value from jsonb_each(_translations) t loop
        if _language !~ '^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*$' then
            return array[
                _path || '.' || left(_language, 60),
                format('%s has %s, which is not a language tag', _path, quote_literal(left(_language, 60))),
                'Use BCP 47 tags such as de or pt-BR.'
            ];
        end if;
        _fault := tocsin.find_texts_fault(_texts, _path || '.' || _language, false);
        if _fault is not null then
            return _fault;
        end if;
    end loop;
    return null;
end
$$;

-- What is wrong with the texts of one channel; _allowed are its fields.
create or replace function tocsin.find_text_fields_fault(_fields jsonb, _path text, _allowed text[]) returns text[]
language plpgsql stable
as $$
declare
    _key text;
    _value jsonb;
    _name text;
    _fault text[];
begin
    if jsonb_typeof(_fields) <> 'object' then
        return array[_path, _path || ' is not a JSON object', format('Its fields are %s.', array_to_string(_allowed, ', '))];
    end if;
    for _key, _value in select f.key, f.value from jsonb_each(_fields) f loop
        if _key <> all (_allowed) then
            return array[
                _path || '.' || left(_key, 60),
                format('%s has an unknown field %s', _path, quote_literal(left(_key, 60))),
                format('Its fields are %s.', array_to_string(_allowed, ', '))
            ];
        elsif _key = 'data' then
            if jsonb_typeof(_value) <> 'object' or octet_length(coalesce(tocsin.push_data(_value), '{}')::text) > 2000 then
                return array[_path || '.data', _path || '.data is not a JSON object of at most 2,000 bytes', 'A phone gets its values as strings: keep ids in it.'];
            end if;
            select k.key into _name
            from jsonb_object_keys(_value) k (key)
            where k.key in ('notification_id', 'event_id', 'event_type', 'action_url', 'actions', 'actions_path', 'aps', 'from', 'message_type')
                or k.key ~ '^(google|gcm)'
            limit 1;
            if found then
                return array[
                    _path || '.data.' || left(_name, 60),
                    format('%s.data has %s, which Tocsin, APNs or FCM use themselves', _path, quote_literal(left(_name, 60))),
                    'Use another name.'
                ];
            end if;
        elsif jsonb_typeof(_value) <> 'string' then
            return array[_path || '.' || _key, format('%s.%s is not a text', _path, _key), 'Pass a text, or leave it out.'];
        else
            -- with the limits of the same argument of notify()
            _fault := tocsin.find_content_fault(
                case _key when 'title' then _value #>> '{}' else 'x' end,
                case _key when 'body' then _value #>> '{}' else '' end,
                case _key when 'body_html' then _value #>> '{}' end,
                null, '{}', null
            );
            if _fault is not null then
                return array[_path || '.' || _key, _path || '.' || _fault[2], _fault[3]];
            end if;
        end if;
    end loop;
    return null;
end
$$;

-- What is wrong with the buttons of an event.
create or replace function tocsin.find_actions_fault(_actions jsonb) returns text[]
language plpgsql stable
as $$
declare
    _action jsonb;
    _path text;
    _position integer := 0;
    _unknown text;
    _keys text[] := '{}';
begin
    if _actions is null then
        return null;
    elsif jsonb_typeof(_actions) <> 'array' or jsonb_array_length(_actions) not between 1 and 3 then
        return array['actions', 'actions is not a list of 1 to 3 objects', 'Pass [{"key": "accept", "label": "Accept"}], or leave it out.'];
    end if;
    for _action in select a.value from jsonb_array_elements(_actions) a loop
        _path := format('actions[%s]', _position);
        _position := _position + 1;
        if jsonb_typeof(_action) <> 'object' then
            return array[_path, _path || ' is not a JSON object', 'Pass {"key", "label", "url" or null, "style": "primary", "danger" or null}.'];
        end if;
        select k.key into _unknown
        from jsonb_object_keys(_action) k (key)
        where k.key not in ('key', 'label', 'url', 'style')
        limit 1;
        if found then
            return array[_path, format('%s has an unknown key %s', _path, quote_literal(left(_unknown, 60))), 'Its keys are key, label, url, style.'];
        elsif jsonb_typeof(_action -> 'key') is distinct from 'string' or _action ->> 'key' !~ '^[a-z0-9_-]{1,40}$' then
            return array[_path || '.key', _path || '.key is not 1 to 40 characters of a-z 0-9 _ -', 'Name what the person chooses, such as accept.'];
        elsif _action ->> 'key' = any (_keys) then
            return array[_path || '.key', _path || '.key is that of another action too', 'Give each action a key of its own.'];
        elsif jsonb_typeof(_action -> 'label') is distinct from 'string' or length(_action ->> 'label') > 40 or not tocsin.is_line(_action ->> 'label') then
            return array[_path || '.label', _path || '.label is not 1 to 40 characters in one line', 'It is the text of a button.'];
        elsif coalesce(jsonb_typeof(_action -> 'url'), 'null') <> 'null'
            and (jsonb_typeof(_action -> 'url') <> 'string' or length(_action ->> 'url') > 2000 or not tocsin.is_web_address(_action ->> 'url'))
        then
            return array[_path || '.url', _path || '.url is neither a path nor an http(s) address', 'Give the page that opens after the press, or null.'];
        elsif coalesce(jsonb_typeof(_action -> 'style'), 'null') <> 'null' and _action -> 'style' not in ('"primary"', '"danger"') then
            return array[_path || '.style', _path || '.style is not known', 'Use primary, danger or null.'];
        end if;
        _keys := _keys || (_action ->> 'key');
    end loop;
    return null;
end
$$;

-- What the options add to the fingerprint of an idempotency key: nothing where a call has none, so that a key of an earlier
-- release stays valid.
create or replace function tocsin.options_fingerprint(_subject text, _replaces boolean, _content jsonb, _actions jsonb, _unknown text)
returns jsonb
language sql immutable
as $$
    select case
        when _subject is null and not _replaces and _content is null and _actions is null and _unknown = 'error' then '[]'::jsonb
        else jsonb_build_array(jsonb_build_object(
            'subject', _subject, 'replaces', _replaces, 'content', _content, 'actions', _actions, 'unknown', _unknown
        ))
    end
$$;

-- Those of these ids that are recipients, in their order.
create or replace function tocsin.known_recipients(_people text[]) returns text[]
language sql stable
as $$
    select array(
        select u.id
        from unnest(_people) with ordinality u (id, position)
        where exists (select from tocsin.recipient r where r.recipient_id = u.id)
        order by u.position
    )
$$;

-- Creates those of these ids that are not recipients yet, with nothing but the id. Waits for no other transaction: returns the
-- ids that open transactions are creating just now, for which the leader does it later.
create or replace function tocsin.create_recipients_by_id(_people text[]) returns text[]
language plpgsql
set lock_timeout = '1ms'
as $$
declare
    _unknown text[] := array(
        select u.id
        from unnest(_people) u (id)
        where not exists (select from tocsin.recipient r where r.recipient_id = u.id)
        order by u.id
    );
    _id text;
    _busy text[] := '{}';
begin
    if exists (select from unnest(_unknown) u (id) where length(u.id) > 200 or not tocsin.is_line(u.id)) then
        perform tocsin.raise_invalid('recipients', 'recipients has an id that is not 1 to 200 characters in one line', 'Pass the ids by which your app knows the people.');
    end if;
    begin
        insert into tocsin.recipient (recipient_id)
        select u.id
        from unnest(_unknown) u (id)
        on conflict do nothing;
        return '{}';
    exception when lock_not_available then
        null; -- one by one, to find which
    end;
    foreach _id in array _unknown loop
        begin
            insert into tocsin.recipient (recipient_id)
            values (_id)
            on conflict do nothing;
        exception when lock_not_available then
            _busy := _busy || _id;
        end;
    end loop;
    return _busy;
end
$$;
