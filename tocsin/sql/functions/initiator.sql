-- The person that caused an event, as those see them who are notified of it: {"id", "name", "avatar_url"}.
create or replace function tocsin.initiator_profile(_recipient_id text) returns jsonb
language sql stable
as $$
    select jsonb_build_object('id', _recipient_id, 'name', r.name, 'avatar_url', r.avatar_url)
    from (select) one
    left join tocsin.recipient r on r.recipient_id = _recipient_id
$$;
