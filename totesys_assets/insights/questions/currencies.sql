-- Which currencies does ToteSys trade in?
-- One row for each code, also where ToteSys has a code twice.
SELECT currency_code, min(currency_name) AS currency_name
FROM dim_currency
WHERE NOT _is_deleted
GROUP BY 1
ORDER BY 1
