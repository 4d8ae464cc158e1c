-- A delivery is agreed for a moment within seven days, a payment within six: the dates that follow from it are what
-- gives the first and the last of these days fewer orders. Neighbours swap their payment numbers once in 400.
INSERT INTO event
WITH drawn AS (
    SELECT n, n <= %(sales)s AS is_sale, pg_temp.draw(n, 1, %(open_ms)s) AS at
    FROM generate_series(1, %(events)s) AS n
), placed AS (
    SELECT
        n,
        is_sale,
        (%(opens)s::timestamp[])[day] + (at - (%(starts)s::bigint[])[day]) * interval '1 millisecond' AS created_at
    FROM drawn, LATERAL width_bucket(at, %(starts)s::bigint[]) AS day
), numbered AS (
    SELECT
        count(*) OVER arrival AS id,
        CASE WHEN is_sale THEN count(*) FILTER (WHERE is_sale) OVER arrival
             ELSE count(*) FILTER (WHERE NOT is_sale) OVER arrival
        END AS order_id,
        is_sale,
        created_at
    FROM placed
    WINDOW arrival AS (ORDER BY created_at, n ROWS UNBOUNDED PRECEDING)
)
SELECT
    id,
    CASE WHEN id > 1 AND id # 1 <= %(events)s AND (id / 2 = 1 OR pg_temp.draw(id / 2, 2, 10000) < 24) THEN id # 1
         ELSE id
    END,
    order_id,
    is_sale,
    created_at,
    1 + pg_temp.draw(id, 3, %(staff)s),
    1 + pg_temp.draw(id, 4, %(counterparties)s),
    1 + pg_temp.draw(id, 5, %(currencies)s),
    1 + pg_temp.draw(id, 6, %(addresses)s),
    CASE WHEN is_sale THEN 1001 + pg_temp.draw(id, 7, 98973) ELSE 1 + pg_temp.draw(id, 7, 999) END,
    CASE WHEN is_sale THEN 200 + pg_temp.draw(id, 8, 201) ELSE 332 + pg_temp.draw(id, 8, 99576) END * 0.01,
    created_at + pg_temp.draw(id, 9, 7 * 86400) * interval '1 second',
    created_at + pg_temp.draw(id, 10, 6 * 86400) * interval '1 second'
FROM numbered
ORDER BY numbered.id
