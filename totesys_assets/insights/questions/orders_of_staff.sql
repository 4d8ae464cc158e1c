-- How many orders does each member of staff take, period by period?
-- A member of staff without an order in a period has no row in it.
SELECT
    date_trunc(%(period)s, sales.created_date)::date AS period,
    sales.member_id AS staff_id,
    coalesce(min(staff.first_name || ' ' || staff.last_name), '') AS staff,
    coalesce(min(staff.department_name), '') AS department,
    sum(sales.orders)::bigint AS orders,
    sum(sales.units)::bigint AS units
FROM mart_sales_day AS sales
LEFT JOIN dim_staff AS staff ON staff.staff_id = sales.member_id
WHERE sales.breakdown = 'staff' AND sales.created_date BETWEEN %(first)s AND %(last)s
GROUP BY 1, 2
ORDER BY 1, 2
