-- Three empty copies of the notifications' table, with all its indexes; two of them have a trigger that updates a badge.
create schema copies;
create table copies.bare (like tocsin.notification including all);
create table copies.appended (like tocsin.notification including all);
create table copies.counted (like tocsin.notification including all);
create table copies.counter (recipient_id text primary key, n integer not null) with (fillfactor = 50);
insert into copies.counter values ('hot', 0);
select tocsin.upsert_recipient('hot');

create function copies.append() returns trigger language plpgsql as $$
begin
    insert into tocsin.unread_delta (recipient_id, n) values (new.recipient_id, 1);
    if tocsin.leader_is_idle() then
        perform tocsin.wake(array[new.recipient_id]);
    end if;
    return null;
end
$$;

create function copies.count() returns trigger language plpgsql as $$
begin
    update copies.counter set n = n + 1 where recipient_id = new.recipient_id;
    return null;
end
$$;

create trigger append after insert on copies.appended for each row execute function copies.append();
create trigger count after insert on copies.counted for each row execute function copies.count();
