-- name: make_ticket
-- A new ticket; answers until when it may be used first.
insert into tocsin.stream_ticket (hash, recipient_id, expires_at, usable_until)
values (:hash, :recipient_id, :expires_at, least(now() + interval '60 s', :expires_at))
returning usable_until;

-- name: take_ticket
-- Opens a stream with a ticket. A process that died with the stream lets go of it when in_use_until comes.
update tocsin.stream_ticket t
set in_use_until = now() + interval '45 s'
where t.hash = :hash
    and t.expires_at > now()
    and case
        when t.in_use_until is null then t.usable_until > now()
        else now() between t.in_use_until and t.in_use_until + interval '60 s'
    end
returning
    t.recipient_id,
    t.expires_at;

-- name: is_ticket_in_use
-- Whether a ticket is good but has its stream open.
select exists (
    select
    from tocsin.stream_ticket t
    where t.hash = :hash
        and t.expires_at > now()
        and t.in_use_until > now()
);

-- name: renew_ticket!
-- Its stream is still open; changes nothing where the ticket is gone, with its person.
update tocsin.stream_ticket t
set in_use_until = now() + interval '45 s'
where t.hash = :hash;

-- name: release_ticket!
-- Its stream ended: 60 s for the next one.
update tocsin.stream_ticket t
set in_use_until = null, usable_until = now() + interval '60 s'
where t.hash = :hash;

-- name: delete_spent_tickets!
-- Those that no stream can be opened with any more.
delete from tocsin.stream_ticket t
where t.expires_at < now()
    or greatest(t.usable_until, t.in_use_until + interval '60 s') < now();
