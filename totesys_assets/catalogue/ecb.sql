-- The euro reference rates that the European Central Bank publishes, about 16:00 in Frankfurt on working days.

-- One row per day of publication and currency: what one euro was worth.
CREATE TABLE exchange_rate (
    exchange_rate_id varchar(14) PRIMARY KEY, -- day and currency, as 2024-08-19 USD
    rate_date date NOT NULL, -- by day: day the rate was published
    currency_code varchar(3) NOT NULL, -- three-letter ISO 4217 code
    units_per_euro numeric(18,8) NOT NULL -- units of the currency for one euro
);
