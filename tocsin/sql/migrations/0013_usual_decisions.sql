-- What most calls decide is looked up: the decisions of each event type for people who chose nothing.

alter table tocsin.event_type
    -- [decisions, …]: tocsin.usual_decisions(), kept by the triggers below
    add column usual jsonb;

create function tocsin.keep_usual_decisions() returns trigger language plpgsql as 'begin return new; end';
create function tocsin.renew_usual_decisions() returns trigger language plpgsql as 'begin return null; end';

create trigger keep_usual_decisions
    before insert or update of default_channels, mandatory_channels on tocsin.event_type
    for each row execute function tocsin.keep_usual_decisions();

create trigger renew_usual_decisions
    after insert or delete or update of available on tocsin.channel
    for each statement execute function tocsin.renew_usual_decisions();

-- Each call locked the type's row for it, all at once; types are retired, never deleted.
alter table tocsin.event drop constraint event_event_type_fkey;

-- their arguments or results changed
drop function if exists
    tocsin.emit(text, text, text[], text, text, text, text, text, jsonb, text, text, text, timestamptz, boolean),
    tocsin.check_content(text, text, text, text, jsonb, text, text),
    tocsin.known_event_type(text);
