-- What is bought, by supplier?
-- Cost is items times price of the purchase orders as they are now, converted, by the day the order was created (UTC).
-- Whether the items have arrived, ToteSys does not keep.
SELECT
    purchases.member_id AS supplier_id,
    coalesce(min(supplier.counterparty_legal_name), '') AS supplier,
    sum(purchases.orders)::bigint AS orders,
    sum(purchases.items)::bigint AS items,
    round(sum(purchases.cost * conversion.rate), 2) AS cost,
    coalesce(sum(purchases.orders) FILTER (WHERE conversion.rate IS NULL), 0)::bigint AS unconverted
FROM mart_purchases_day AS purchases
LEFT JOIN dim_counterparty AS supplier ON supplier.counterparty_id = purchases.member_id
LEFT JOIN dim_currency AS currency USING (currency_id)
LEFT JOIN conversion_rate AS published
    ON published.day = coalesce(%(rate_day)s::date, purchases.created_date)
    AND published.basis = %(basis)s
    AND published.from_currency = currency.currency_code
    AND published.to_currency = %(currency)s
CROSS JOIN LATERAL (
    SELECT CASE currency.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
) AS conversion
WHERE purchases.breakdown = 'supplier' AND purchases.created_date BETWEEN %(first)s AND %(last)s
GROUP BY 1
ORDER BY cost DESC NULLS LAST, 1
