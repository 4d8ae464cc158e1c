-- What one unit of a currency is worth in another, on each day that mart_exchange_rate has. The euro is the pivot.
SELECT
    own.day, -- calendar day
    kind.basis, -- day: the rate of the day; month: the average of its month
    own.currency_code AS from_currency, -- currency of the money
    other.currency_code AS to_currency, -- currency that is wanted
    CASE kind.basis
        WHEN 'day' THEN round(other.units_per_euro::numeric(38, 25) / own.units_per_euro, 15)
        ELSE round(round(other.month_average, 12)::numeric(38, 25) / round(own.month_average, 12), 15)
    END AS rate, -- to the fifteenth decimal: multiply with this, and round last
    LEAST(own.published_date, other.published_date) AS published_date, -- day the older of both rates was published
    GREATEST(own.carried_days, other.carried_days) AS carried_days -- days since then
FROM mart_exchange_rate AS own
INNER JOIN mart_exchange_rate AS other ON other.day = own.day
CROSS JOIN (VALUES ('day'), ('month')) AS kind (basis)
