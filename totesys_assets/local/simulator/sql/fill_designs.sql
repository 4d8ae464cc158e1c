INSERT INTO design (design_id, created_at, design_name, file_location, file_name, last_updated)
WITH drawn AS (
    SELECT n, pg_temp.draw(n, 101, %(open_ms)s) AS at
    FROM generate_series(1, %(designs)s) AS n
), placed AS (
    SELECT
        n,
        CASE WHEN n <= %(first_designs)s THEN %(opening)s
             ELSE (%(opens)s::timestamp[])[day] + (at - (%(starts)s::bigint[])[day]) * interval '1 millisecond'
        END AS created_at
    FROM drawn, LATERAL width_bucket(at, %(starts)s::bigint[]) AS day
), named AS (
    SELECT
        row_number() OVER (ORDER BY created_at, n) AS design_id,
        created_at,
        (%(design_names)s::text[])[1 + pg_temp.draw(n, 102, cardinality(%(design_names)s::text[]))] AS design_name,
        (%(paths)s::text[])[1 + pg_temp.draw(n, 103, cardinality(%(paths)s::text[]))] AS file_location,
        to_char(created_at - pg_temp.draw(n, 104, 730) * interval '1 day', 'YYYYMMDD') AS drawn_on,
        pg_temp.draw(n, 105, 1679616) AS code
    FROM placed
)
SELECT
    design_id,
    created_at,
    design_name,
    file_location,
    lower(design_name || '-' || drawn_on || '-' || pg_temp.digit(code, 1) || pg_temp.digit(code, 36)
        || pg_temp.digit(code, 1296) || pg_temp.digit(code, 46656)) || '.json',
    created_at
FROM named
ORDER BY design_id
