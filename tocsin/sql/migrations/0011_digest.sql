-- An unsubscribe link ends digests at once: what waits for one is then settled, not sent.
alter table tocsin.digest_preference add column unsubscribed boolean not null default false;

-- clean_up
create index digest_created_at on tocsin.digest (created_at);
-- digests_at_work
create index delivery_digest_due on tocsin.delivery (digest_id) where digest_id is not null and due_at is not null;

-- it answers more now
drop function if exists tocsin.mark_all_read(text, text, text, pg_snapshot);
