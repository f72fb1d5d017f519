-- Planner settings of functions: four profiles, each with the functions that have it.
--
-- by_index: for statements that look for a few rows by an index, often among many dead ones. Planning takes longer than
--     they do, so a plan is kept; it may be made while a table is almost empty, when reading all of it looks cheap, and be
--     used when the table has a hundred thousand rows.
-- by_index_nested: the same for statements that join such rows with several tables, one row after the other. Where a limit is an
--     argument, the planner expects a tenth of what is due: with a large backlog it would read whole tables.
-- by_index_hashed: the same for the fan-out, to a few or a hundred thousand people: each table is read once for all of them, and
--     the results are joined by hashing, since nested loops would compare each person with each row.
-- by_order: for a list that is read along an index that has its order, as far as is needed; the planner, which does not know how far,
--     would sort all of it.
--
-- tocsin.unread_count() has a setting of its own: it is called most often, and each setting costs time.
do $$
declare
    _function regprocedure;
    _setting text;
begin
    for _function, _setting in
        select f.oid, u.setting
        from (
            values
                (
                    array[
                        'assemble_digests', 'dispatch_event_queues', 'has_newer_member', 'inbox_page', 'stream_updates', 'unfinished',
                        'unread_counts_in_order', 'unseen_counts_in_order'
                    ],
                    array['enable_seqscan = off', 'enable_bitmapscan = off', 'jit = off', 'plan_cache_mode = force_generic_plan']
                ),
                (
                    array[
                        'dispatch_due', 'end_leases', 'recent_messages', 'settled_between',
                        'throttle_by_cap', 'throttle_one'
                    ],
                    array[
                        'enable_seqscan = off', 'enable_bitmapscan = off', 'jit = off', 'plan_cache_mode = force_generic_plan',
                        'enable_hashjoin = off', 'enable_mergejoin = off'
                    ]
                ),
                (
                    array['fan_out_rows'],
                    array[
                        'enable_seqscan = off', 'enable_bitmapscan = off', 'jit = off', 'plan_cache_mode = force_generic_plan',
                        'enable_nestloop = off', 'enable_mergejoin = off', 'work_mem = ''64MB'''
                    ]
                ),
                (
                    array['group_facts', 'group_heads'],
                    array['enable_bitmapscan = off', 'jit = off', 'plan_cache_mode = force_generic_plan', 'enable_sort = off']
                )
        ) p (functions, settings)
        join pg_proc f on f.pronamespace = 'tocsin'::regnamespace and f.proname = any (p.functions)
        cross join unnest(p.settings) u (setting)
    loop
        execute format('alter function %s set %s', _function, _setting);
    end loop;
end
$$;
