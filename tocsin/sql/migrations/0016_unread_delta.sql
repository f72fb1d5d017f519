-- Changes of the badge are found by transaction by the listener alone. The index is partial (a change is never 0), so that
-- a count can't take it: on the table as it mostly is, empty, it looks as good as the one by recipient, and a plan is kept
-- for the day when a hundred thousand changes are there.

-- scan, fold_unread
create index unread_delta_unfolded on tocsin.unread_delta (xid) include (recipient_id) where n <> 0;
drop index tocsin.unread_delta_xid;
