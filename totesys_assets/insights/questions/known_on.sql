-- What was known of sales at a moment, and what is known of the same days now?
-- Orders as they had been captured by then, by the day of the order, beside the same as they are now. Both convert at
-- the rates that are known now: a difference is one of orders, not of rates. Before the first capture nothing was
-- known.
WITH known AS (
    -- As in the view current_sales_order, of what had been recorded by then.
    SELECT DISTINCT ON (sales_order_id) created_date, currency_id, units_sold * unit_price AS revenue
    FROM (
        SELECT DISTINCT ON (sales_order_id, created_date)
            sales_order_id, created_date, _recorded_at, _operation, currency_id, units_sold, unit_price
        FROM fact_sales_order
        WHERE _recorded_at <= %(moment)s::timestamptz
        ORDER BY sales_order_id DESC, created_date DESC, _recorded_at DESC
    ) AS newest
    WHERE _operation <> 'delete'
    ORDER BY sales_order_id DESC, _recorded_at DESC, created_date DESC
),
summed AS (
    SELECT created_date, currency_id, count(*) AS orders_then, sum(revenue) AS revenue_then,
        0 AS orders_now, 0 AS revenue_now
    FROM known
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
