-- What each key may do, one scope for each kind of call. A key of before keeps all that it could do; `app` stays in its
-- list for processes of the version before, which look for that.
alter table tocsin.api_key
    -- patterns of the event types that it may write and read; null: all
    add column event_types text[] check (cardinality(event_types) between 1 and 100),
    -- the first characters of the key, to know it by; null for a key of before
    add column prefix text check (length(prefix) between 1 and 20);

update tocsin.api_key k
set scopes = k.scopes || '{events:write,events:read,recipients,erase,channels,suppressions}'::text[]
where 'app' = any (k.scopes);

alter table tocsin.api_key
    alter column scopes drop default;
