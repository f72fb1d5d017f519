-- Tokens of APNs are hexadecimal numbers: two spellings of one (upper case, blanks, the angle brackets of NSData's description)
-- are one phone, which belongs to whoever registered it last.
with form as (
    select
        d.device_id,
        lower(regexp_replace(d.token collate "C", '[<>[:space:]]', '', 'g')) as token,
        d.registered_at
    from tocsin.device d
    where d.provider = 'apns'
),
ranked as (
    select f.device_id, row_number() over (partition by f.token order by f.registered_at desc, f.device_id desc) as place
    from form f
)
delete from tocsin.device d
using ranked r
where d.device_id = r.device_id
    and r.place > 1;

update tocsin.device d
set token = lower(regexp_replace(d.token collate "C", '[<>[:space:]]', '', 'g'))
where d.provider = 'apns'
    and d.token <> lower(regexp_replace(d.token collate "C", '[<>[:space:]]', '', 'g'))
    -- a token of FCM may be spelt like that, and one that is nothing but blanks reaches no phone anyway
    and regexp_replace(d.token collate "C", '[<>[:space:]]', '', 'g') <> ''
    and not exists (
        select
        from tocsin.device o
        where o.token = lower(regexp_replace(d.token collate "C", '[<>[:space:]]', '', 'g'))
            and o.provider <> 'apns'
    );
