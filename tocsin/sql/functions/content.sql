-- The argument content of notify(): which of its texts a channel and a language get.

-- The first set of texts that has one of these fields: those of the language for the channel, those of the language, those of
-- the channel. Null where the event's own text is meant. A language is that of the locale, or the longest prefix of it that
-- has a translation with the field: de-AT, then de.
create or replace function tocsin.find_texts(_content jsonb, _locale text, _channel text, _fields text[]) returns jsonb
language sql immutable
as $$
    select s.texts
    from (
        select length(t.key) as specific, s.level, s.texts
        from jsonb_each(_content -> 'translations') t
        cross join lateral (values (2, t.value -> _channel), (1, t.value)) s (level, texts)
        where starts_with(
            lower(replace(_locale, '_', '-')) || '-',
            lower(replace(t.key, '_', '-')) || '-'
        )
        union all
        select 0, 0, _content -> _channel
    ) s
    where s.texts ?| _fields
    order by s.specific desc, s.level desc
    limit 1
$$;

-- One text of an event as a channel shows it to a person with this locale; _default is the event's own. `body` and
-- `body_html` come from the same set of texts, so that both parts of a mail are in one language. Lists are no channel.
create or replace function tocsin.text_for(_content jsonb, _locale text, _channel text, _field text, _default text) returns text
language sql immutable
as $$
    select case
        when f.texts is null then _default
        when _field = 'body' then coalesce(f.texts ->> 'body', '')
        else f.texts ->> _field
    end
    from (
        select tocsin.find_texts(
            _content, _locale, _channel, case when _field = 'title' then '{title}' else '{body,body_html}' end::text[]
        ) as texts
    ) f
$$;

-- The same as a list of the person shows it, in the locale that the person has now.
create or replace function tocsin.listed_text(_content jsonb, _recipient_id text, _field text, _default text) returns text
language sql stable
as $$
    select tocsin.text_for(_content, r.locale, 'in_app', _field, _default)
    from (select (select r.locale from tocsin.recipient r where r.recipient_id = _recipient_id) as locale) r
$$;

-- What the app gives for phones, each value as a string; nulls are left out.
create or replace function tocsin.push_data(_data jsonb) returns jsonb
language sql immutable
as $$
    select jsonb_object_agg(d.key, d.value #>> '{}')
    from jsonb_each(_data) d
    where d.value <> 'null'
$$;
