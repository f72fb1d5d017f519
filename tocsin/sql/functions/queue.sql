-- What Procrastinate's triggers notify, on a channel in our own name.
--
-- Procrastinate's own channels have no schema in their names: a second Procrastinate in the database would receive our
-- notifications, and ours would receive its. Any login may send on any channel, so the payload is empty and is not
-- read: a notification only makes a worker look for jobs earlier than its next poll.

create or replace function tocsin_queue.procrastinate_notify_queue_job_inserted_v1() returns trigger
language plpgsql
set search_path = tocsin_queue, pg_temp
as $$
begin
    perform pg_notify('tocsin_queue', '');
    return new;
end
$$;

-- Not announced: workers read the requests to abort a job from the table of jobs.
create or replace function tocsin_queue.procrastinate_notify_queue_abort_job_v1() returns trigger
language plpgsql
set search_path = tocsin_queue, pg_temp
as $$
begin
    return new;
end
$$;
