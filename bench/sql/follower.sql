-- One read of the change feed, as each replica makes it at least every 250 ms (src/feed/follower.rs).
-- pgbench keeps the snapshot of the last read in the variable `seen`.
select snapshot::text as seen from read_changes(:seen::text::pg_snapshot) limit 1 \gset
