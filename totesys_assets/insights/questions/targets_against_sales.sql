-- What was each department to sell in each month, and what did it sell?
-- Months are whole: those that the first and the last day lie in. Targets come from files; a department without one has
-- an empty "target". A target converts at the average rate of its month, unless all converts at the rate of one day.
-- "unconverted" counts orders and targets in a currency without a rate: they are not in "revenue" and "target".
WITH span AS (
    SELECT
        date_trunc('month', %(first)s::date)::date AS first_day,
        (date_trunc('month', %(last)s::date) + interval '1 month')::date AS next_day,
        (SELECT min(day) FROM mart_exchange_rate) AS first_rated -- the first month may begin before
),
targets AS (
    SELECT
        date_trunc('month', target.target_month)::date AS month,
        target.department_name AS department,
        sum(target.amount * conversion.rate)::numeric(36, 17) AS amount,
        count(*) FILTER (WHERE conversion.rate IS NULL) AS unconverted
    FROM dim_sales_target AS target
    JOIN span ON target.target_month >= span.first_day AND target.target_month < span.next_day
    LEFT JOIN conversion_rate AS published
        ON published.day = coalesce(%(rate_day)s::date, greatest(target.target_month, span.first_rated))
        AND published.basis = CASE WHEN %(rate_day)s::date IS NULL THEN 'month' ELSE %(basis)s END
        AND published.from_currency = target.currency_code
        AND published.to_currency = %(currency)s
    CROSS JOIN LATERAL (
        SELECT CASE target.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
    ) AS conversion
    WHERE NOT target._is_deleted
    GROUP BY 1, 2
),
sales AS (
    SELECT
        date_trunc('month', sale.created_date)::date AS month,
        coalesce(staff.department_name, '') AS department,
        sum(sale.orders) AS orders,
        sum(sale.revenue * conversion.rate)::numeric(36, 17) AS amount,
        coalesce(sum(sale.orders) FILTER (WHERE conversion.rate IS NULL), 0) AS unconverted
    FROM mart_sales_day AS sale
    JOIN span ON sale.created_date >= span.first_day AND sale.created_date < span.next_day
    LEFT JOIN dim_currency AS currency USING (currency_id)
    LEFT JOIN dim_staff AS staff ON staff.staff_id = sale.member_id
    LEFT JOIN conversion_rate AS published
        ON published.day = coalesce(%(rate_day)s::date, sale.created_date)
        AND published.basis = %(basis)s
        AND published.from_currency = currency.currency_code
        AND published.to_currency = %(currency)s
    CROSS JOIN LATERAL (
        SELECT CASE currency.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
    ) AS conversion
    WHERE sale.breakdown = 'staff'
    GROUP BY 1, 2
)
SELECT
    coalesce(targets.month, sales.month) AS month,
    coalesce(targets.department, sales.department) AS department,
    round(targets.amount, 2) AS target,
    coalesce(sales.orders, 0)::bigint AS orders,
    round(CASE WHEN sales.month IS NOT NULL THEN sales.amount ELSE 0 END, 2) AS revenue,
    round(CASE WHEN sales.month IS NOT NULL THEN sales.amount ELSE 0 END - targets.amount, 2) AS difference,
    (coalesce(sales.unconverted, 0) + coalesce(targets.unconverted, 0))::bigint AS unconverted
FROM targets
FULL JOIN sales ON sales.month = targets.month AND sales.department = targets.department
ORDER BY 1, 2
