-- Which currencies does ToteSys trade in?
-- One row each, by code.
SELECT currency_code, currency_name
FROM dim_currency
WHERE NOT _is_deleted
ORDER BY currency_code
