-- name: press_action
-- Presses a button of a person's notification; returns how it ended, and what was chosen.
select
    p.outcome,
    p.chosen
from tocsin.press_action(:recipient_id, :notification_id, :key) p;
