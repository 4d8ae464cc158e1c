-- Which unpaid payments of customers are overdue, largest first?
-- Payments of type SALES_RECEIPT as they are now, unpaid after the day they were due. "amount" is in their own
-- currency. "converted" is empty where there is no rate; such payments come last.
WITH place AS MATERIALIZED (
    -- Payments of one day, currency and due day convert at one rate. The mart knows the largest of them. So the largest
    -- payments of all are in as many of these places, with ties.
    SELECT
        mart.created_date,
        mart.currency_id,
        mart.payment_type_id,
        mart.payment_date,
        conversion.rate
    FROM mart_payments_day AS mart
    JOIN dim_payment_type AS kind ON kind.payment_type_id = mart.payment_type_id
    LEFT JOIN dim_currency AS currency ON currency.currency_id = mart.currency_id
    LEFT JOIN conversion_rate AS published
        ON published.day = coalesce(%(rate_day)s::date, mart.payment_date)
        AND published.basis = %(basis)s
        AND published.from_currency = currency.currency_code
        AND published.to_currency = %(currency)s
    CROSS JOIN LATERAL (
        SELECT CASE currency.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
    ) AS conversion
    WHERE NOT mart.paid AND mart.payment_date < %(today)s::date AND kind.payment_type_name = 'SALES_RECEIPT'
    ORDER BY mart.largest * conversion.rate DESC NULLS LAST
    FETCH FIRST %(rows)s ROWS WITH TIES
),
version AS MATERIALIZED (
    SELECT fact.payment_id, fact.created_date, fact._recorded_at, fact.payment_amount * place.rate AS converted
    FROM place
    -- OFFSET 0 keeps the places from being joined with all payments at once.
    CROSS JOIN LATERAL (
        SELECT payment_id, created_date, _recorded_at, payment_amount
        FROM fact_payment
        WHERE NOT paid
            AND fact_payment.created_date = place.created_date
            AND fact_payment.payment_date = place.payment_date
            AND fact_payment.currency_id = place.currency_id
            AND fact_payment.payment_type_id = place.payment_type_id
        OFFSET 0
    ) AS fact
)
SELECT
    payment.payment_id,
    payment.sales_order_id,
    payment.customer,
    payment.due_date,
    %(today)s::date - payment.due_date::date AS days_overdue,
    payment.currency,
    payment.amount,
    round(version.converted, 2) AS converted
FROM (SELECT * FROM version ORDER BY converted DESC NULLS LAST, payment_id) AS version
-- Is it the one of now? OFFSET 0 keeps all payments from being looked up at once: the largest versions suffice.
CROSS JOIN LATERAL (SELECT * FROM receivable WHERE receivable.payment_id = version.payment_id OFFSET 0) AS payment
WHERE payment.created_date = version.created_date AND payment._recorded_at = version._recorded_at
ORDER BY version.converted DESC NULLS LAST, version.payment_id
LIMIT %(rows)s
