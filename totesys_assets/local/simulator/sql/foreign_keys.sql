SELECT relname, conname, pg_get_constraintdef(pg_constraint.oid)
FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
WHERE contype = 'f' AND relname = ANY(%s) AND connamespace = current_schema()::regnamespace
ORDER BY relname, conname
