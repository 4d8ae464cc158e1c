-- The role that reads ToteSys for the platform, and can do nothing else. Run it with psql, in the ToteSys database, as
-- a superuser or as a role that may create roles and grant on the tables; run it again at will: it states what is to be.
--
--   psql "$ADMIN_URL" -f deploy/sql/source_reader.sql
--   psql "$ADMIN_URL" -c '\password totesys_reader'
--
-- Other names: -v role=… -v schema=…. No password is in here; without one the role cannot log in.

\set ON_ERROR_STOP on
\set QUIET on
\if :{?role} \else \set role totesys_reader \endif
\if :{?schema} \else \set schema public \endif

BEGIN;
SET LOCAL client_min_messages = warning;

SELECT format('CREATE ROLE %I', :'role') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec

-- Whoever looks or captures has one connection, and for a moment still the one before. Five at a time are two runs, the
-- sensor, a command and somebody with psql.
ALTER ROLE :"role" LOGIN NOINHERIT CONNECTION LIMIT 10;

-- A setting is a default and no wall: what keeps the role from writing is that it is granted nothing but SELECT. The
-- timeouts are those that the platform sets itself; they also hold for a session opened by hand.
ALTER ROLE :"role" SET default_transaction_read_only = on;
ALTER ROLE :"role" SET statement_timeout = '1h';
ALTER ROLE :"role" SET idle_in_transaction_session_timeout = '1h';
ALTER ROLE :"role" SET lock_timeout = '60s';
ALTER ROLE :"role" SET search_path = :"schema"; -- for sessions opened by hand; the platform is told by TOTESYS_SCHEMA

SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), :'role') \gexec
REVOKE ALL ON SCHEMA :"schema" FROM :"role";
GRANT USAGE ON SCHEMA :"schema" TO :"role";

-- These eleven tables and no other, whatever was granted before. No default privileges: a new table stays unread.
SELECT DISTINCT format('REVOKE ALL ON %s FROM %I', pg_class.oid::regclass, :'role')
FROM pg_class, aclexplode(relacl) AS held
WHERE held.grantee = quote_ident(:'role')::regrole AND relkind IN ('r', 'p', 'v', 'm', 'f') \gexec

GRANT SELECT ON
    :"schema".address,
    :"schema".counterparty,
    :"schema".currency,
    :"schema".department,
    :"schema".design,
    :"schema".payment,
    :"schema".payment_type,
    :"schema".purchase_order,
    :"schema".sales_order,
    :"schema".staff,
    :"schema".transaction
TO :"role";

COMMIT;
