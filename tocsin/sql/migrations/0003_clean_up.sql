-- clean_up: what is over, by when it was
create index notification_over on tocsin.notification (
    coalesce(read_at, archived_at, case when not in_inbox then created_at end)
)
where read_at is not null or archived_at is not null or not in_inbox;
