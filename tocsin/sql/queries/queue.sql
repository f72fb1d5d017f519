-- name: requeue_lost_jobs!
-- Jobs that a worker fetched without learning of it, since its connection was lost: not those that it runs (:running).
update tocsin_queue.procrastinate_jobs j
set status = 'todo'
where j.worker_id = :worker_id
    and j.status = 'doing'
    and j.id <> all (:running)
    and not j.abort_requested;
