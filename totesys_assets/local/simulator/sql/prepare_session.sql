-- draw(n, stream, size) is a number from 0 to size - 1, the same for the same seed whatever the plan of the query:
-- random() would depend on the order in which rows are made. PostgreSQL inlines these.
SET TimeZone TO 'UTC';
SET DateStyle TO 'ISO';
SET LOCAL work_mem TO '256MB';
SET LOCAL maintenance_work_mem TO '256MB';
CREATE FUNCTION pg_temp.draw(n bigint, stream bigint, size bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS 'SELECT (hashint8extended(n, hashint8extended(stream, {seed})) & 9223372036854775807) % size';
CREATE FUNCTION pg_temp.digit(value bigint, place bigint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT substr('0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ', (value / place % 36)::int + 1, 1) $$;
