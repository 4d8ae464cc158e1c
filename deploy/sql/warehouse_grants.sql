-- What the roles of warehouse_roles.sql may do with the tables and views that are there. Run it with psql, in the
-- warehouse's database, as the owner, after every `totesys migrate` that did something; again at will.
--
--   psql "$OWNER_URL" -f deploy/sql/warehouse_grants.sql
--
-- Other names: -v loader=… -v reader=… -v schema=…, as for warehouse_roles.sql.

\set ON_ERROR_STOP on
\set QUIET on
\if :{?loader} \else \set loader warehouse_loader \endif
\if :{?reader} \else \set reader warehouse_reader \endif
\if :{?schema} \else \set schema public \endif

-- In one transaction: a load under way sees the old rights or the new ones, never none.
BEGIN;
SET LOCAL client_min_messages = warning;

-- Facts are added to. Dimensions, the ledger of loads and the notes on dead letters are brought up to date. The rows of
-- marts, the findings of the audit and the notes on followed stretches are replaced. Nobody but the owner deletes anything else. What triggers keep, they
-- write with the owner's rights.
-- Of what others keep in the schema nothing is granted: only what belongs to the schema's owner.
SELECT format(statement, pg_class.oid::regclass, :'loader', :'reader')
FROM pg_class
JOIN pg_namespace ON pg_namespace.oid = relnamespace AND nspname = :'schema' AND relowner = nspowner,
unnest(ARRAY[
    'REVOKE ALL ON %1$s FROM %2$I, %3$I',
    'GRANT SELECT ON %1$s TO %2$I, %3$I',
    CASE WHEN relkind IN ('r', 'p') AND relname LIKE 'fact\_%' THEN 'GRANT INSERT ON %1$s TO %2$I' END,
    CASE WHEN relkind IN ('r', 'p') AND (relname LIKE 'dim\_%' OR relname IN ('_ledger', '_dead_letter'))
        THEN 'GRANT INSERT, UPDATE ON %1$s TO %2$I' END,
    CASE WHEN relkind IN ('r', 'p') AND (relname LIKE 'mart\_%' OR relname IN ('_finding', '_followed'))
        THEN 'GRANT INSERT, UPDATE, DELETE ON %1$s TO %2$I' END
]) WITH ORDINALITY AS wanted (statement, place)
WHERE relkind IN ('r', 'p', 'v') AND statement IS NOT NULL
ORDER BY pg_class.oid, place \gexec

-- Where facts are partitioned by month, a load makes those that come.
SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I', pg_proc.oid::regprocedure, :'loader')
FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace AND nspname = :'schema' AND proowner = nspowner
WHERE proname = 'keep_months_ahead' \gexec

COMMIT;
