-- From which day to which are there sales orders?
-- Days on which the first and the last of them were created (UTC); empty if there is none.
SELECT min(created_date) AS first_day, max(created_date) AS last_day
FROM mart_sales_day
