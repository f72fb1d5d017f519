-- name: find_address_owner
-- Whose an address is by now, if anybody's.
select tocsin.find_address_owner(tocsin.compared_address(:address));

-- name: suppress_address!
-- No more mail to the address of somebody without an account.
insert into tocsin.suppression (address, reason)
values (tocsin.compared_address(:address), 'unsubscribed')
on conflict do nothing;

-- name: lift_suppression!
-- Takes that back; what bounced or was reported stays.
delete from tocsin.suppression s
where s.key = tocsin.address_key(tocsin.compared_address(:address))
    and s.reason = 'unsubscribed';

-- name: is_suppressed
-- Whether an address must not be mailed, whatever for.
select exists (
    select
    from tocsin.suppression s
    where s.key = tocsin.address_key(tocsin.compared_address(:address))
);

-- name: turn_digest_off
-- A person's digest off; answers how often it came, nothing where it was off.
select p.frequency
from tocsin.digest_preference p
cross join tocsin.turn_digest_off(p.recipient_id) t (changed)
where p.recipient_id = :recipient_id
    and t.changed;

-- name: turn_digest_on
-- A person's digest on again, at the hour of their choice, where a link had turned it off.
select tocsin.set_digest_preference(p.recipient_id, :frequency, null, null, null, null)
from tocsin.digest_preference p
where p.recipient_id = :recipient_id
    and p.unsubscribed;

-- name: mute_topic
-- A person hears no more of a topic.
select tocsin.subscribe(:recipient_id, :topic, 'muted');

-- name: unmute_topic
-- As before it was muted.
select tocsin.unmute(:recipient_id, :topic);

-- name: save_for_undo!
-- What a link turned off; what it kept before stays, so that clicking twice does no harm.
insert into tocsin.opt_out (recipient_id, key, kept)
values (:recipient_id, :key, :kept)
on conflict do nothing;

-- name: take_saved
-- What it kept, once.
delete from tocsin.opt_out o
where o.recipient_id = :recipient_id
    and o.key = :key
returning o.kept;
