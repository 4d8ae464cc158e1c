-- What was spent on marketing in each country, and what was sold there?
-- Months are whole: those that the first and the last day lie in. Spend comes from files, and converts at the average
-- rate of its month, unless all converts at the rate of one day. Countries are matched by their ISO code, those that have
-- none by name; orders whose address is missing have no name. "ratio" is the revenue for one unit spent: it does not
-- say that the one led to the other.
-- "unconverted" counts orders and amounts in a currency without a rate: they are not in "revenue" and "spend".
WITH span AS (
    SELECT
        date_trunc('month', %(first)s::date)::date AS first_day,
        (date_trunc('month', %(last)s::date) + interval '1 month')::date AS next_day,
        (SELECT min(day) FROM mart_exchange_rate) AS first_rated -- the first month may begin before
),
spends AS (
    SELECT
        coalesce(country.country_code, spend.country) AS place,
        min(spend.country) AS country,
        sum(spend.amount * conversion.rate)::numeric(36, 17) AS amount,
        count(*) FILTER (WHERE conversion.rate IS NULL) AS unconverted
    FROM dim_marketing_spend AS spend
    JOIN span ON spend.spend_month >= span.first_day AND spend.spend_month < span.next_day
    LEFT JOIN dim_country AS country ON country.country = spend.country
    LEFT JOIN conversion_rate AS published
        ON published.day = coalesce(%(rate_day)s::date, greatest(spend.spend_month, span.first_rated))
        AND published.basis = CASE WHEN %(rate_day)s::date IS NULL THEN 'month' ELSE %(basis)s END
        AND published.from_currency = spend.currency_code
        AND published.to_currency = %(currency)s
    CROSS JOIN LATERAL (
        SELECT CASE spend.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
    ) AS conversion
    WHERE NOT spend._is_deleted
    GROUP BY 1
),
sales AS (
    SELECT
        coalesce(country.country_code, location.country, '') AS place,
        coalesce(min(location.country), '') AS country,
        sum(sale.orders) AS orders,
        sum(sale.revenue * conversion.rate)::numeric(36, 17) AS amount,
        coalesce(sum(sale.orders) FILTER (WHERE conversion.rate IS NULL), 0) AS unconverted
    FROM mart_sales_day AS sale
    JOIN span ON sale.created_date >= span.first_day AND sale.created_date < span.next_day
    LEFT JOIN dim_currency AS currency USING (currency_id)
    LEFT JOIN dim_location AS location ON location.location_id = sale.member_id
    LEFT JOIN dim_country AS country ON country.country = location.country
    LEFT JOIN conversion_rate AS published
        ON published.day = coalesce(%(rate_day)s::date, sale.created_date)
        AND published.basis = %(basis)s
        AND published.from_currency = currency.currency_code
        AND published.to_currency = %(currency)s
    CROSS JOIN LATERAL (
        SELECT CASE currency.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
    ) AS conversion
    WHERE sale.breakdown = 'location'
    GROUP BY 1
)
SELECT
    coalesce(sales.country, spends.country) AS country,
    round(spends.amount, 2) AS spend,
    coalesce(sales.orders, 0)::bigint AS orders,
    round(CASE WHEN sales.place IS NOT NULL THEN sales.amount ELSE 0 END, 2) AS revenue,
    round(CASE WHEN sales.place IS NOT NULL THEN sales.amount ELSE 0 END / nullif(spends.amount, 0), 2) AS ratio,
    (coalesce(sales.unconverted, 0) + coalesce(spends.unconverted, 0))::bigint AS unconverted
FROM spends
FULL JOIN sales ON sales.place = spends.place
ORDER BY spend DESC NULLS LAST, revenue DESC NULLS LAST, country
