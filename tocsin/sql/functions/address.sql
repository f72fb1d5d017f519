-- The form in which addresses are compared, so that two spellings of one address are equal: upper and lower case, and the
-- two ways in which Unicode and DNS write a domain (RFC 5321, RFC 6531, IDNA 2008). Nothing is trimmed, and dots and tags
-- of the local part stay: only its server knows what they mean.
--
-- The form is stored, so it must not depend on the database's locale or on the machine's libraries: lower-case letters
-- come from a table of our own, and lower() is used for ASCII only.

create or replace function tocsin.compared_address(_address text) returns text
language plpgsql immutable strict parallel safe
as $$
declare
    _local text;
begin
    if octet_length(_address) = length(_address) then
        return lower(_address collate "C");
    end if;
    _local := coalesce(substring(_address from '^(.*)@'), '');
    -- a final sigma is compared as a sigma
    return replace(normalize(tocsin.lower_case(normalize(_local, nfc)), nfc), 'ς', 'σ') || '@'
        || tocsin.compared_domain(substring(_address from length(_local) + 2));
end
$$;

-- A domain as DNS writes it: each label that is not ASCII in punycode, after the mapping of UTS 46 as far as PostgreSQL
-- has it: compatibility forms, case, the three other full stops, and invisible characters.
create or replace function tocsin.compared_domain(_domain text) returns text
language sql immutable strict parallel safe
as $$
    select string_agg(
        case when octet_length(l.label) = length(l.label) then l.label else 'xn--' || tocsin.punycode(l.label) end,
        '.'
        order by l.position
    )
    from string_to_array(
        normalize(
            tocsin.lower_case(
                -- what stands after the full stop is dropped: soft hyphen, joiner, zero-width space, variation selectors
                translate(
                    normalize(_domain, nfkc),
                    E'\u3002\u00ad\u034f\u200b\u2060\ufeff'
                    '\ufe00\ufe01\ufe02\ufe03\ufe04\ufe05\ufe06\ufe07\ufe08\ufe09\ufe0a\ufe0b\ufe0c\ufe0d\ufe0e\ufe0f',
                    '.'
                )
            ),
            nfc
        ),
        '.'
    ) d (labels),
        unnest(d.labels) with ordinality l (label, position)
$$;

-- One label in punycode (RFC 3492, section 6.3), without its prefix.
create or replace function tocsin.punycode(_label text) returns text
language plpgsql immutable strict parallel safe
as $$
declare
    _digits constant text := 'abcdefghijklmnopqrstuvwxyz0123456789';
    -- the code point of each character
    _points integer[] := array(
        select ascii(c.char)
        from unnest(string_to_array(_label, null)) with ordinality c (char, position)
        order by c.position
    );
    _encoded text := array_to_string(array(select chr(p) from unnest(_points) p where p < 128), '');
    _basic integer := length(_encoded);
    _done integer := _basic;
    _n bigint := 128;
    _delta bigint := 0;
    _bias integer := 72;
    _next bigint;
    _point integer;
    _q bigint;
    _k integer;
    _t integer;
begin
    if _basic > 0 then
        _encoded := _encoded || '-';
    end if;
    while _done < cardinality(_points) loop
        select min(p) into _next from unnest(_points) p where p >= _n;
        _delta := _delta + (_next - _n) * (_done + 1);
        _n := _next;
        foreach _point in array _points loop
            if _point < _n then
                _delta := _delta + 1;
            elsif _point = _n then
                _q := _delta;
                _k := 36;
                loop
                    _t := least(greatest(_k - _bias, 1), 26);
                    exit when _q < _t;
                    _encoded := _encoded || substr(_digits, _t + ((_q - _t) % (36 - _t))::integer + 1, 1);
                    _q := (_q - _t) / (36 - _t);
                    _k := _k + 36;
                end loop;
                _encoded := _encoded || substr(_digits, _q::integer + 1, 1);
                -- adapt the bias (section 6.1)
                _delta := _delta / case when _done = _basic then 700 else 2 end;
                _delta := _delta + _delta / (_done + 1);
                _k := 0;
                while _delta > 455 loop
                    _delta := _delta / 35;
                    _k := _k + 36;
                end loop;
                _bias := _k + (36 * _delta / (_delta + 38))::integer;
                _delta := 0;
                _done := _done + 1;
            end if;
        end loop;
        _delta := _delta + 1;
        _n := _n + 1;
    end loop;
    return _encoded;
end
$$;

-- The keyed hash (HMAC-SHA256) of an address in its compared form. A suppression is found by it even after the address
-- itself was erased.
create or replace function tocsin.address_key(_address text) returns bytea
language plpgsql stable strict parallel safe
as $$
declare
    -- the inner and the outer pad of the key
    _pads bytea := (select s.value from tocsin.secret s where s.name = 'address_key');
begin
    return sha256(substr(_pads, 65) || sha256(substr(_pads, 1, 64) || convert_to(_address, 'UTF8')));
end
$$;

-- Sets a recipient's compared address and its hash, however the row is written.
create or replace function tocsin.set_compared_address() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    new.address := tocsin.compared_address(new.email);
    new.address_key := tocsin.address_key(new.address);
    return new;
end
$$;

create or replace trigger set_compared_address
before insert or update of email, address on tocsin.recipient
for each row execute function tocsin.set_compared_address();

-- Sets a suppression's key, however the row is written.
create or replace function tocsin.set_suppression_key() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    new.key := tocsin.address_key(new.address);
    return new;
end
$$;

create or replace trigger set_suppression_key
before insert on tocsin.suppression
for each row execute function tocsin.set_suppression_key();

-- The recipient to whom an address belongs: the one who claimed it, else the first one who has it; null if there is none.
create or replace function tocsin.find_address_owner(_address text) returns text
language sql stable
as $$
    select coalesce(
        (
            select c.recipient_id
            from tocsin.address_owner c
            where c.address = _address
        ),
        (
            select r.recipient_id
            from tocsin.recipient r
            where r.address = _address
            order by r.created_at, r.recipient_id
            limit 1
        )
    )
$$;

-- What is wrong with an address, or null: RFC 5321 (sections 4.1.2 and 4.5.3.1), with RFC 6531 for characters beyond ASCII,
-- and RFC 1123 for host names. A quoted local part and an address literal are refused, though the RFCs allow them: hardly
-- any server accepts them. Whether the domain exists is not checked. settings/addresses.py has the same rule for ASCII addresses.
create or replace function tocsin.address_fault(_address text) returns text
language plpgsql immutable strict parallel safe
as $$
declare
    _local text := split_part(_address, '@', 1);
    _domain text := substr(_address, length(_local) + 2);
begin
    -- one comparison is enough for most addresses
    if length(_address) <= 64 and _address ~ '^[a-z0-9]+([._+-][a-z0-9]+)*@([a-z0-9]+(-[a-z0-9]+)*[.])+[a-z]+$' then
        return null;
    end if;
    if length(_address) > 254 then
        return 'it is longer than 254 bytes';
    end if;
    if octet_length(_domain) <> length(_domain) then
        -- punctuation and invisible characters would get a form in punycode too
        _domain := case
            when _domain !~
                E'[\\u0001-\\u0020\\u007f-\\u00a0\\u115f\\u1160\\u1680\\u180e\\u2000-\\u200a\\u200c-\\u205f\\u2061-\\u206f'
                '\\u2800\\u3000\\u3001\\u3003\\u3004\\u3008-\\u3020\\u3164\\uffa0\\ufff0-\\uffff\\U000e0000-\\U0010ffff]'
                then tocsin.compared_domain(_domain)
            else ''
        end;
    end if;
    return case
        when _address !~ '^[^@]+@[^@]+$' then 'it needs one @ between a name and a domain'
        when octet_length(_local) > 64 then 'more than 64 bytes stand before the @'
        when octet_length(_local) + 1 + octet_length(_domain) > 254 then 'it is longer than 254 bytes'
        when _local ~ '^[.]|[.][.]|[.]$' then 'before the @ a dot stands at an end, or beside another'
        when _local ~
            E'[]["(),:;<>\\\\\\u0001-\\u0020\\u007f-\\u00a0\\u00ad\\u034f\\u061c\\u115f\\u1160\\u1680\\u17b4\\u17b5\\u180b-\\u180f'
            '\\u2000-\\u206f\\u2800\\u3000-\\u3004\\u3008-\\u3020\\u3164\\ufe00-\\ufe1f\\ufe30-\\ufe6f\\ufeff\\uff01-\\uff0f'
            '\\uff1a-\\uff20\\uffa0\\ufff0-\\uffff\\U000e0000-\\U0010ffff]'
            then 'before the @ are only letters, digits and !#$%&''*+/=?^_`{|}~-.'
        when _domain !~ '^[A-Za-z0-9-]+([.][A-Za-z0-9-]+)*$' then
            'its domain is not letters, digits and hyphens, with single dots between them'
        when _domain ~ '(^|[.])-|-([.]|$)' then 'a part of its domain begins or ends with a hyphen'
        when _domain ~ '[^.]{64}' then 'a part of its domain is longer than 63 characters'
        when _domain ~ '(^|[.])[0-9]+$' then 'its domain ends with a number'
    end;
end
$$;
