-- Who sells, how many orders and for how much?
-- One row per member of staff who sold anything, with the department as it is now.
-- "unconverted" counts orders in a currency without a rate: their revenue is not in "revenue".
SELECT
    sales.member_id AS staff_id,
    staff.first_name || ' ' || staff.last_name AS staff,
    staff.department_name AS department,
    sum(sales.orders)::bigint AS orders,
    sum(sales.units)::bigint AS units,
    round(sum(sales.revenue * conversion.rate), 2) AS revenue,
    coalesce(sum(sales.orders) FILTER (WHERE conversion.rate IS NULL), 0)::bigint AS unconverted
FROM mart_sales_day AS sales
JOIN dim_currency AS currency USING (currency_id)
LEFT JOIN dim_staff AS staff ON staff.staff_id = sales.member_id
LEFT JOIN conversion_rate AS conversion
    ON conversion.day = coalesce(%(rate_day)s::date, sales.created_date)
    AND conversion.basis = %(basis)s
    AND conversion.from_currency = currency.currency_code
    AND conversion.to_currency = %(currency)s
WHERE sales.breakdown = 'staff' AND sales.created_date BETWEEN %(first)s AND %(last)s
GROUP BY 1, 2, 3
ORDER BY orders DESC, staff_id
