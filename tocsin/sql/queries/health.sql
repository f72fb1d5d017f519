-- name: is_migrated
-- Whether the schema is there: a load balancer's question.
select exists (
    select
    from tocsin.migration
);
