-- What was imported from another system, so that an import can be repeated and continued.
create table tocsin.imported (
    source text not null check (length(source) between 1 and 200),
    key text not null check (length(key) between 1 and 200),
    event_id bigint not null,
    imported_at timestamptz not null default now(),
    primary key (source, key)
);

comment on table tocsin.imported is 'Notifications that were imported, by their ids in the system they came from. Kept, so that what was erased or cleaned up is not imported again.';
comment on column tocsin.imported.source is 'Where they came from, such as django-notifications.';
comment on column tocsin.imported.key is 'The id there.';
comment on column tocsin.imported.event_id is 'The event that was made of it.';
comment on column tocsin.imported.imported_at is 'When it was imported.';
