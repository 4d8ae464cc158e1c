-- What did the last audit find?
-- The audit compares the sources, the lake and the warehouse every night, or with `totesys audit`. Of each check: equal,
-- different, warning (about the data in the source), or pending (nothing could be compared before the next refresh).
-- A run in Dagster may have looked at some of the checks only; the others are then as they were found before.
SELECT asset, check_name, outcome, detail, run_id, audited_at
FROM _finding
ORDER BY position(outcome IN 'different warning pending equal'), asset, check_name
