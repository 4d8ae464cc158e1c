-- The roles of Dagster's own records: one owns the schema of their database, one reads all of it, for a UI that shows and
-- changes nothing (--read-only). Both are nobody anywhere else. Run it with psql, in that database, which is for nothing
-- else, as a superuser or as its owner with CREATEROLE; run it again at will. Dagster makes and migrates its tables
-- itself, as the first.
--
--   psql "$ADMIN_URL" -f deploy/sql/dagster_role.sql
--   psql "$ADMIN_URL" -c '\password dagster'
--
-- Other names: -v role=… -v viewer=…. No password is in here; without one a role cannot log in.

\set ON_ERROR_STOP on
\set QUIET on
\if :{?role} \else \set role dagster \endif
\if :{?viewer} \else \set viewer dagster_viewer \endif

BEGIN;
SET LOCAL client_min_messages = warning;

SELECT format('CREATE ROLE %I', name) FROM unnest(ARRAY[:'role', :'viewer']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

ALTER ROLE :"role" LOGIN NOINHERIT;
ALTER ROLE :"viewer" LOGIN NOINHERIT;
ALTER ROLE :"viewer" SET default_transaction_read_only = on;

SELECT format('GRANT CONNECT ON DATABASE %I TO %I, %I', current_database(), :'role', :'viewer') \gexec

-- Only a superuser may give to a role what it is not a member of.
SELECT format('GRANT %I TO CURRENT_USER', :'role') WHERE NOT current_setting('is_superuser')::boolean \gexec

-- A schema's new owner needs CREATE on the database, for a moment.
SELECT format(statement, current_database(), :'role')
FROM pg_namespace, unnest(ARRAY[
    'GRANT CREATE ON DATABASE %1$I TO %2$I',
    'ALTER SCHEMA public OWNER TO %2$I',
    'REVOKE CREATE ON DATABASE %1$I FROM %2$I'
]) AS statement
WHERE nspname = 'public' AND nspowner <> quote_ident(:'role')::regrole \gexec

-- PostgreSQL before 15 lets everybody create in it.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM :"viewer";
REVOKE ALL ON SCHEMA public FROM :"viewer";
GRANT USAGE ON SCHEMA public TO :"viewer";
GRANT SELECT ON ALL TABLES IN SCHEMA public TO :"viewer";
ALTER DEFAULT PRIVILEGES FOR ROLE :"role" IN SCHEMA public GRANT SELECT ON TABLES TO :"viewer";

COMMIT;
