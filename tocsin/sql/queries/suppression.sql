-- name: list_older_suppressions
-- Addresses that must not be mailed, newest first, from a position in the list on; those of one reason, or all.
select
    s.suppression_id as id,
    s.address,
    s.reason,
    s.created_at
from tocsin.suppression s
where (:reason::text is null or s.reason = :reason)
    and (s.created_at, s.suppression_id) < (coalesce(:at, 'infinity'::timestamptz), coalesce(:id, 9223372036854775807))
order by s.created_at desc, s.suppression_id desc
limit :limit;

-- name: list_newer_suppressions
-- Those just after a position in the list, oldest first.
select
    s.suppression_id as id,
    s.address,
    s.reason,
    s.created_at
from tocsin.suppression s
where (:reason::text is null or s.reason = :reason)
    and (s.created_at, s.suppression_id) > (:at::timestamptz, :id::bigint)
order by s.created_at, s.suppression_id
limit :limit;

-- name: lift_suppression
-- Allows mail to an address again, whatever the reason; the reason, and no row where it was not suppressed.
delete from tocsin.suppression s
where s.key = tocsin.address_key(tocsin.compared_address(:address))
returning s.reason;

-- name: lift_suppression_by_id
-- The same by its id in the list, also where the address itself was erased.
delete from tocsin.suppression s
where s.suppression_id = :suppression_id
returning s.reason;

-- name: suppress_address!
-- Suppresses the address of a person without an account.
insert into tocsin.suppression (address, reason)
values (tocsin.compared_address(:address), 'unsubscribed')
on conflict do nothing;

-- name: undo_unsubscribed!
-- Undoes that; a suppression for a bounce or a complaint stays.
delete from tocsin.suppression s
where s.key = tocsin.address_key(tocsin.compared_address(:address))
    and s.reason = 'unsubscribed';

-- name: is_suppressed
-- Whether an address must not be mailed.
select exists (
    select
    from tocsin.suppression s
    where s.key = tocsin.address_key(tocsin.compared_address(:address))
);
