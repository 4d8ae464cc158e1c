-- The role of Dagster's own records: it owns the schema of their database, and is nobody anywhere else. Run it with
-- psql, in that database, which is for nothing else, as a superuser or as its owner with CREATEROLE; run it again at
-- will. Dagster makes and migrates its tables itself, as this role.
--
--   psql "$ADMIN_URL" -f deploy/sql/dagster_role.sql
--   psql "$ADMIN_URL" -c '\password dagster'
--
-- Another name: -v role=…. No password is in here; without one the role cannot log in.

\set ON_ERROR_STOP on
\if :{?role} \else \set role dagster \endif

BEGIN;
SET LOCAL client_min_messages = warning;

SELECT format('CREATE ROLE %I', :'role') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec

ALTER ROLE :"role" LOGIN NOINHERIT;

SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), :'role') \gexec

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

COMMIT;
