-- How much do customers owe, and for how long has it been overdue?
-- Unpaid payments of type SALES_RECEIPT, as they are now, by the days since they were due. On that day itself they are
-- not overdue yet. Refunds are not counted: ToteSys has a type for them, and no payment of it. Each converts at the
-- rate of its due day, which before that day is the newest there is; "rate_day" converts all at one closing rate.
WITH ages (place, age, from_days, to_days) AS (
    VALUES
        (1, 'not due', NULL, 0),
        (2, '1 to 30 days', 1, 30),
        (3, '31 to 60 days', 31, 60),
        (4, '61 to 90 days', 61, 90),
        (5, 'over 90 days', 91, NULL)
),
unpaid AS (
    SELECT
        payment.currency_id,
        payment.payment_date,
        %(today)s::date - payment.payment_date::date AS days,
        sum(payment.payments) AS payments,
        sum(payment.amount) AS amount
    FROM mart_payments_day AS payment
    JOIN dim_payment_type AS kind USING (payment_type_id)
    WHERE NOT payment.paid AND kind.payment_type_name = 'SALES_RECEIPT'
    GROUP BY 1, 2
)
SELECT
    ages.place,
    ages.age,
    coalesce(sum(unpaid.payments), 0)::bigint AS payments,
    coalesce(round(sum(unpaid.amount * conversion.rate), 2), 0) AS amount,
    coalesce(sum(unpaid.payments) FILTER (WHERE conversion.rate IS NULL), 0)::bigint AS unconverted
FROM ages
LEFT JOIN unpaid
    ON unpaid.days >= coalesce(ages.from_days, unpaid.days) AND unpaid.days <= coalesce(ages.to_days, unpaid.days)
LEFT JOIN dim_currency AS currency USING (currency_id)
LEFT JOIN conversion_rate AS published
    ON published.day = coalesce(%(rate_day)s::date, unpaid.payment_date)
    AND published.basis = %(basis)s
    AND published.from_currency = currency.currency_code
    AND published.to_currency = %(currency)s
CROSS JOIN LATERAL (
    SELECT CASE currency.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
) AS conversion
GROUP BY 1, 2
ORDER BY 1
