-- The three roles of the warehouse:
--
--   owner   creates and migrates the tables and views (totesys migrate), and owns them
--   loader  the login of the pipeline: adds to facts, keeps dimensions up to date, deletes nothing
--   reader  for BI: reads tables and views
--
-- Run it with psql, in the warehouse's database, as a superuser or as the database's owner with CREATEROLE; run it
-- again at will. Then give out passwords, migrate as the owner, and grant on what that made:
--
--   psql "$ADMIN_URL" -f deploy/sql/warehouse_roles.sql
--   psql "$ADMIN_URL" -c '\password warehouse_owner'    (and so for warehouse_loader and warehouse_reader)
--   WAREHOUSE_URL="$OWNER_URL" totesys migrate
--   psql "$OWNER_URL" -f deploy/sql/warehouse_grants.sql
--
-- Other names: -v owner=… -v loader=… -v reader=… -v schema=… (the schema is WAREHOUSE_SCHEMA), in both files alike.
-- No password is in here; without one a role cannot log in. Nothing is granted to PUBLIC.

\set ON_ERROR_STOP on
\set QUIET on
\if :{?owner} \else \set owner warehouse_owner \endif
\if :{?loader} \else \set loader warehouse_loader \endif
\if :{?reader} \else \set reader warehouse_reader \endif
\if :{?schema} \else \set schema public \endif

BEGIN;
SET LOCAL client_min_messages = warning;

SELECT format('CREATE ROLE %I', name) FROM unnest(ARRAY[:'owner', :'loader', :'reader']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

ALTER ROLE :"owner" LOGIN NOINHERIT;
ALTER ROLE :"loader" LOGIN NOINHERIT;
ALTER ROLE :"reader" LOGIN NOINHERIT;

-- Defaults for sessions opened by hand; the platform sets its own. A reader's query must not hold up a migration.
ALTER ROLE :"loader" SET idle_in_transaction_session_timeout = '1h';
ALTER ROLE :"reader" SET default_transaction_read_only = on;
ALTER ROLE :"reader" SET statement_timeout = '10min';
ALTER ROLE :"reader" SET idle_in_transaction_session_timeout = '5min';
ALTER ROLE :"reader" SET lock_timeout = '10s';
ALTER ROLE :"reader" SET search_path = :"schema";

-- TEMPORARY: the loader stages rows in a temporary table.
SELECT format('GRANT CONNECT ON DATABASE %I TO %I, %I, %I', current_database(), :'owner', :'loader', :'reader') \gexec
SELECT format('GRANT TEMPORARY ON DATABASE %I TO %I', current_database(), :'loader') \gexec

-- Only a superuser may give to a role what it is not a member of.
SELECT format('GRANT %I TO CURRENT_USER', :'owner') WHERE NOT current_setting('is_superuser')::boolean \gexec

SELECT format('CREATE SCHEMA %I AUTHORIZATION %I', :'schema', :'owner')
WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = :'schema') \gexec

-- What one login for everything has made so far becomes the owner's. A schema's new owner needs CREATE on the database,
-- for a moment.
SELECT format(statement, current_database(), :'schema', :'owner')
FROM pg_namespace, unnest(ARRAY[
    'GRANT CREATE ON DATABASE %1$I TO %3$I',
    'ALTER SCHEMA %2$I OWNER TO %3$I',
    'REVOKE CREATE ON DATABASE %1$I FROM %3$I'
]) AS statement
WHERE nspname = :'schema' AND nspowner <> quote_ident(:'owner')::regrole \gexec

SELECT format('ALTER TABLE %s OWNER TO %I', oid::regclass, :'owner') FROM pg_class
WHERE relnamespace = quote_ident(:'schema')::regnamespace AND relkind IN ('r', 'p', 'v')
    AND relowner <> quote_ident(:'owner')::regrole AND (
        relname ~ '^(dim_|_?fact_|mart_|current_|history_|_superseded_)'
        OR relname IN ('_ledger', '_migration', '_dead_letter', '_finding', '_followed', '_recorded', '_design_sales')
        OR relkind = 'v' AND relname IN ('conversion_rate', 'purchase', 'receivable', 'sale')
    ) \gexec

SELECT format('ALTER FUNCTION %s OWNER TO %I', oid::regprocedure, :'owner') FROM pg_proc
WHERE pronamespace = quote_ident(:'schema')::regnamespace AND proowner <> quote_ident(:'owner')::regrole
    AND (proname ~ '^keep_(fact|dim|mart)_' AND prorettype = 'trigger'::regtype OR proname = 'keep_months_ahead') \gexec

-- PostgreSQL before 15 lets everybody create in schema public.
REVOKE CREATE ON SCHEMA :"schema" FROM PUBLIC;
REVOKE ALL ON SCHEMA :"schema" FROM :"loader", :"reader";
GRANT USAGE ON SCHEMA :"schema" TO :"loader", :"reader";

-- What the owner will make can be read at once. Which of it is a fact cannot be said beforehand: warehouse_grants.sql.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA :"schema" GRANT SELECT ON TABLES TO :"loader", :"reader";

COMMIT;
