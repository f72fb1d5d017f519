-- name: press_action
-- Presses a button of a person's notification; returns how it ended, and what was chosen.
select
    p.outcome,
    p.chosen
from tocsin.press_action(:recipient_id, :notification_id, :key) p;

-- name: actions_state
-- Why no button of a person's notification can be pressed any more, null where one can; and the person's language.
select
    tocsin.actions_closed(n, e) as closed,
    r.locale
from tocsin.notification n
join tocsin.event e using (event_id)
join tocsin.recipient r using (recipient_id)
where n.notification_id = :notification_id
    and n.recipient_id = :recipient_id;
