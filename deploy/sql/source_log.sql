-- A narrow door to PostgreSQL's log of ToteSys: the role that reads for the platform may follow it in a replication slot
-- of the platform's own. It gets no REPLICATION, which would be the right to read, and to hold, the log of the whole
-- server. Run it with psql, in the ToteSys database, after source_reader.sql, as a superuser or as somebody who owns the
-- tables, has CREATE on the database, CREATEROLE and, from PostgreSQL 16, REPLICATION. Run it again at will: it states
-- what is to be, and publishes tables that are new.
--
--   psql "$ADMIN_URL" -f deploy/sql/source_log.sql
--   totesys log check
--
-- Other names: -v role=… -v schema=…. The server needs wal_level = logical and a limit, max_slot_wal_keep_size: PostgreSQL
-- keeps the log of a slot until it is read, and without a limit a platform that is switched off would fill the disk.

\set ON_ERROR_STOP on
\set QUIET on
\if :{?role} \else \set role totesys_reader \endif
\if :{?schema} \else \set schema public \endif

BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL search_path = pg_catalog, pg_temp;

-- Nobody logs in as it: it owns the functions, which do with its right no more than they say. On RDS and Aurora it is a
-- member of rds_replication instead, which stands for the right there.
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication') AS rds \gset
SELECT 'CREATE ROLE totesys_log NOLOGIN' || CASE WHEN :'rds' THEN '' ELSE ' REPLICATION' END
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'totesys_log') \gexec
SELECT 'ALTER ROLE totesys_log NOLOGIN REPLICATION'
WHERE NOT :'rds' AND NOT (SELECT rolreplication AND NOT rolcanlogin FROM pg_roles WHERE rolname = 'totesys_log') \gexec
\if :rds
    GRANT rds_replication TO totesys_log;
\endif

-- The tables whose changes can be told from the log, with all their rows and columns. Once a table without a replica
-- identity is published, the application's own UPDATE and DELETE of it fail; of partitions, the log does not tell what
-- becomes of one as a whole; of an unlogged table it tells nothing; and it knows no row-level security. These are left to
-- comparison, and taken out where they are published.
SELECT set_config('totesys_log.schema', :'schema', true) AS is_set \gset
DO $$
DECLARE
    one record;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'totesys_log') THEN
        CREATE PUBLICATION totesys_log;
    ELSIF NOT (
        SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate FROM pg_publication WHERE pubname = 'totesys_log'
    ) THEN
        ALTER PUBLICATION totesys_log SET (publish = 'insert, update, delete, truncate');
    END IF;
    FOR one IN
        SELECT wanted.name, c.oid,
            CASE
                WHEN c.oid IS NULL THEN 'is not there'
                WHEN c.relkind <> 'r' OR EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid) THEN 'is no single table'
                WHEN c.relpersistence <> 'p' THEN 'is not logged'
                WHEN c.relreplident <> 'f' AND NOT (c.relreplident = 'd' AND EXISTS (
                    SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary AND indimmediate
                )) THEN 'has no primary key that is its replica identity'
                WHEN c.relrowsecurity THEN 'has row-level security'
            END AS obstacle,
            member.prrelid IS NOT NULL AS is_published,
            to_jsonb(member) ->> 'prqual' IS NULL AND to_jsonb(member) ->> 'prattrs' IS NULL AS is_whole
        FROM (
            VALUES
                ('address'),
                ('counterparty'),
                ('currency'),
                ('department'),
                ('design'),
                ('payment'),
                ('payment_type'),
                ('purchase_order'),
                ('sales_order'),
                ('staff'),
                ('transaction')
        ) AS wanted (name)
        LEFT JOIN pg_namespace AS n ON n.nspname = current_setting('totesys_log.schema')
        LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = wanted.name
        LEFT JOIN pg_publication AS p ON p.pubname = 'totesys_log'
        LEFT JOIN pg_publication_rel AS member ON member.prpubid = p.oid AND member.prrelid = c.oid
        ORDER BY wanted.name
    LOOP
        IF one.is_published AND (one.obstacle IS NOT NULL OR NOT one.is_whole) THEN
            EXECUTE format('ALTER PUBLICATION totesys_log DROP TABLE ONLY %s', one.oid::regclass);
        END IF;
        IF one.obstacle IS NOT NULL THEN
            RAISE WARNING 'table % % and is left out of the publication', one.name, one.obstacle;
        ELSIF NOT (one.is_published AND one.is_whole) THEN
            EXECUTE format('ALTER PUBLICATION totesys_log ADD TABLE ONLY %s', one.oid::regclass);
        END IF;
    END LOOP;
END $$;

-- Who is no superuser makes the functions as a member of their owner, until the end of this transaction. Since
-- PostgreSQL 16, who makes a role may grant it, but may not be it at once.
SELECT CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END AS membership \gset
SELECT NOT rolsuper AND NOT pg_has_role(oid, 'totesys_log', :'membership') AS stranger
FROM pg_roles WHERE rolname = current_user \gset
\if :stranger
    GRANT totesys_log TO CURRENT_USER;
\endif
CREATE SCHEMA IF NOT EXISTS totesys_log AUTHORIZATION totesys_log;
DO $$ BEGIN
    IF (SELECT nspowner <> 'totesys_log'::regrole FROM pg_namespace WHERE nspname = 'totesys_log') THEN
        RAISE EXCEPTION 'the schema totesys_log is somebody else''s: drop it first';
    END IF;
END $$;
SET LOCAL ROLE totesys_log;

-- Slot names are of the whole server, and each lake has a slot of its own: those of platforms are known by their names.
CREATE OR REPLACE FUNCTION totesys_log.require(slot name) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF slot IS NULL OR slot !~ '^totesys_log_[0-9a-z]{1,40}$' THEN
        RAISE EXCEPTION 'slot % is not of a platform', quote_nullable(slot) USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF EXISTS (
        SELECT FROM pg_replication_slots WHERE slot_name = slot
            AND (plugin IS DISTINCT FROM 'pgoutput' OR database IS DISTINCT FROM current_database())
    ) THEN
        RAISE EXCEPTION 'slot % is another''s', slot USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$;

-- From here on the server keeps the log, within its limit. A few slots are enough: a login cannot take all there are.
CREATE OR REPLACE FUNCTION totesys_log.begin(slot name) RETURNS pg_lsn
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM totesys_log.require(slot);
    IF current_setting('max_slot_wal_keep_size') = '-1' THEN
        RAISE EXCEPTION 'max_slot_wal_keep_size is -1, so that a slot could fill the disk of this server: set a limit'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'this server is a standby' USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF (SELECT count(*) >= 4 FROM pg_replication_slots WHERE slot_name ~ '^totesys_log_' AND slot_name <> slot) THEN
        RAISE EXCEPTION 'there are four slots of platforms already: drop one that is no longer read'
            USING ERRCODE = 'configuration_limit_exceeded';
    END IF;
    RETURN (SELECT lsn FROM pg_create_logical_replication_slot(slot, 'pgoutput'));
END $$;

-- Whole transactions up to a position, at most about so many messages, as pgoutput writes them. Nothing is forgotten.
-- Values are text that no setting of a session may colour. The sentences are the client's only way to tell one failure
-- from another: those of the server may be in any language.
CREATE OR REPLACE FUNCTION totesys_log.peek(slot name, until pg_lsn, most int) RETURNS SETOF bytea
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD'
SET intervalstyle = 'postgres' SET extra_float_digits = 1 SET bytea_output = 'hex' SET lc_monetary = 'C'
SET quote_all_identifiers = off SET client_encoding = 'UTF8' AS $$
DECLARE
    said text;
BEGIN
    PERFORM totesys_log.require(slot);
    IF until IS NULL OR most IS NULL OR most < 1 THEN
        RAISE EXCEPTION 'a peek needs an end and a number of messages' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY SELECT data FROM pg_logical_slot_peek_binary_changes(
        slot, until, most, 'proto_version', '1', 'publication_names', 'totesys_log'
    );
EXCEPTION
    WHEN object_in_use THEN
        GET STACKED DIAGNOSTICS said = MESSAGE_TEXT;
        RAISE EXCEPTION 'totesys_log in use: %', said USING ERRCODE = 'object_in_use';
    WHEN undefined_object OR object_not_in_prerequisite_state THEN
        GET STACKED DIAGNOSTICS said = MESSAGE_TEXT;
        RAISE EXCEPTION 'totesys_log gone: %', said USING ERRCODE = 'object_not_in_prerequisite_state';
    WHEN character_not_in_repertoire OR untranslatable_character THEN
        GET STACKED DIAGNOSTICS said = MESSAGE_TEXT;
        RAISE EXCEPTION 'totesys_log unreadable: %', said USING ERRCODE = 'untranslatable_character';
END $$;

-- What lies before a position need not be kept any longer. Returns where the slot is now.
CREATE OR REPLACE FUNCTION totesys_log.forget(slot name, upto pg_lsn) RETURNS pg_lsn
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM totesys_log.require(slot);
    RETURN (SELECT end_lsn FROM pg_replication_slot_advance(slot, upto));
END $$;

-- The slot is dropped. Returns whether there was one.
CREATE OR REPLACE FUNCTION totesys_log.finish(slot name) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM totesys_log.require(slot);
    PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = slot;
    RETURN FOUND;
END $$;

REVOKE ALL ON SCHEMA totesys_log FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA totesys_log FROM PUBLIC;
GRANT USAGE ON SCHEMA totesys_log TO :"role";
GRANT EXECUTE ON FUNCTION totesys_log.begin, totesys_log.peek, totesys_log.forget, totesys_log.finish TO :"role";
RESET ROLE;
\if :stranger
    REVOKE totesys_log FROM CURRENT_USER;
\endif

COMMIT;
