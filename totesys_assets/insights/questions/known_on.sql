-- What was known of sales at a moment, and what is known of the same days now?
-- Orders as they had been captured by then, by the day of the order, beside the same as they are now. Both convert at
-- the rates that are known now: a difference is one of orders, not of rates. Before the first capture nothing was
-- known.
WITH noted AS MATERIALIZED (
    -- Which records may have been recorded by then, and which since: by the counts that PostgreSQL keeps.
    SELECT
        max(last_record) FILTER (WHERE first_recorded_at <= %(moment)s::timestamptz) AS last_before,
        min(first_record) FILTER (WHERE last_recorded_at > %(moment)s::timestamptz) AS first_since,
        coalesce(sum(versions) FILTER (WHERE first_recorded_at <= %(moment)s::timestamptz), 0) AS before,
        coalesce(sum(versions) FILTER (WHERE last_recorded_at > %(moment)s::timestamptz), 0) AS since
    FROM _recorded
    WHERE table_name = 'fact_sales_order'
),
way AS MATERIALIZED (
    -- Where less was recorded since then than before, what was known is what is known now but for the orders recorded
    -- since. That needs a mart that was made of the very versions that the fact holds.
    SELECT before > 0 AND before >= since AND (
        SELECT count(*) = 2 AND count(DISTINCT state) = 1
        FROM _ledger
        WHERE table_name IN ('fact_sales_order', 'mart_sales_day') AND partition = 'lake'
    ) AS is_from_now
    FROM noted
),
touched AS MATERIALIZED (
    -- All versions of the orders that were recorded since.
    SELECT version.*
    FROM (
        SELECT DISTINCT sales_order_id
        FROM fact_sales_order
        WHERE sales_record_id >= (SELECT first_since FROM noted)
            AND _recorded_at > %(moment)s::timestamptz
            AND (SELECT is_from_now FROM way)
    ) AS since
    JOIN fact_sales_order AS version ON version.sales_order_id = since.sales_order_id
),
records AS (
    -- The versions that had been recorded by then: of all orders, or of those recorded since.
    SELECT sales_order_id, created_date, _recorded_at, _operation, currency_id, units_sold, unit_price
    FROM fact_sales_order
    WHERE sales_record_id <= (SELECT last_before FROM noted)
        AND _recorded_at <= %(moment)s::timestamptz
        AND NOT (SELECT is_from_now FROM way)
    UNION ALL
    SELECT sales_order_id, created_date, _recorded_at, _operation, currency_id, units_sold, unit_price
    FROM touched
    WHERE _recorded_at <= %(moment)s::timestamptz
),
known AS (
    -- As in the view current_sales_order, of what had been recorded by then.
    SELECT DISTINCT ON (sales_order_id) created_date, currency_id, units_sold * unit_price AS revenue
    FROM (
        SELECT DISTINCT ON (sales_order_id, created_date) *
        FROM records
        ORDER BY sales_order_id DESC, created_date DESC, _recorded_at DESC
    ) AS newest
    WHERE _operation <> 'delete'
    ORDER BY sales_order_id DESC, _recorded_at DESC, created_date DESC
),
counted_now AS (
    -- As in mart_sales_day, of the orders recorded since.
    SELECT created_date, currency_id, units_sold * unit_price AS revenue
    FROM (
        SELECT DISTINCT ON (sales_order_id, created_date) *
        FROM touched
        ORDER BY sales_order_id DESC, created_date DESC, _recorded_at DESC
    ) AS newest
    WHERE _operation <> 'delete'
),
parts AS (
    -- Of one of both ways; the other has no rows.
    SELECT created_date, currency_id, 1 AS orders, revenue
    FROM known
    UNION ALL
    SELECT created_date, currency_id, -1, -revenue
    FROM counted_now
    UNION ALL
    SELECT created_date, currency_id, orders, revenue
    FROM mart_sales_day
    WHERE breakdown = 'total' AND (SELECT is_from_now FROM way)
),
summed AS (
    SELECT created_date, currency_id, sum(orders) AS orders_then, sum(revenue) AS revenue_then,
        0 AS orders_now, 0 AS revenue_now
    FROM parts
    WHERE created_date BETWEEN %(first)s AND %(last)s
    GROUP BY 1, 2
    UNION ALL
    SELECT created_date, currency_id, 0, 0, orders, revenue
    FROM mart_sales_day
    WHERE breakdown = 'total' AND created_date BETWEEN %(first)s AND %(last)s
)
SELECT
    date_trunc(%(period)s, sales.created_date)::date AS period,
    sum(sales.orders_then)::bigint AS orders_then,
    sum(sales.orders_now)::bigint AS orders_now,
    coalesce(round(sum(sales.revenue_then * conversion.rate), 2), 0) AS revenue_then,
    coalesce(round(sum(sales.revenue_now * conversion.rate), 2), 0) AS revenue_now,
    coalesce(sum(sales.orders_then) FILTER (WHERE conversion.rate IS NULL), 0)::bigint AS unconverted_then,
    coalesce(sum(sales.orders_now) FILTER (WHERE conversion.rate IS NULL), 0)::bigint AS unconverted_now
FROM summed AS sales
LEFT JOIN dim_currency AS currency USING (currency_id)
LEFT JOIN conversion_rate AS published
    ON published.day = coalesce(%(rate_day)s::date, sales.created_date)
    AND published.basis = %(basis)s
    AND published.from_currency = currency.currency_code
    AND published.to_currency = %(currency)s
CROSS JOIN LATERAL (
    SELECT CASE currency.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
) AS conversion
GROUP BY 1
ORDER BY 1
