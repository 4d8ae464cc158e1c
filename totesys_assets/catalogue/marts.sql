-- Marts: tables made of the star, for questions that are asked often. The SELECT of a mart is marts/<name>.sql, and its
-- name begins with mart_. A mart with a column "by day:" is replaced day by day, any other as a whole.

-- One row per calendar day and currency of ToteSys, and the euro: the rate that was the last published by then.
CREATE TABLE mart_exchange_rate (
    day date, -- calendar day, up to two years after the newest rate
    currency_code varchar, -- ISO 4217 code
    units_per_euro numeric(18,8) NOT NULL, -- units of the currency for one euro
    month_average numeric(38,18) NOT NULL, -- mean of the rates published in the day's month; in a month without one, units_per_euro
    published_date date NOT NULL, -- day the rate was published
    carried_days int NOT NULL, -- days since then; below 0 before the first rate, which is then used
    PRIMARY KEY (day, currency_code)
);

-- One row per day, currency and what sales are broken down by: orders as they are now.
CREATE TABLE mart_sales_day (
    created_date date REFERENCES dim_date, -- by day: day the orders were created (UTC)
    currency_id int REFERENCES dim_currency, -- currency of the revenue
    breakdown varchar, -- total, staff, customer or location
    member_id int, -- the member of staff, counterparty or place of delivery; 0 for total
    orders bigint NOT NULL, -- number of orders
    units bigint NOT NULL, -- number of bags
    revenue numeric(38,2) NOT NULL, -- units times price, in the currency
    PRIMARY KEY (created_date, currency_id, breakdown, member_id)
);

-- One row per day, currency and what purchases are broken down by: orders as they are now.
CREATE TABLE mart_purchases_day (
    created_date date REFERENCES dim_date, -- by day: day the orders were created (UTC)
    currency_id int REFERENCES dim_currency, -- currency of the cost
    breakdown varchar, -- total, staff or supplier
    member_id int, -- the member of staff or counterparty; 0 for total
    orders bigint NOT NULL, -- number of orders
    items bigint NOT NULL, -- number of items
    cost numeric(38,2) NOT NULL, -- items times price, in the currency
    PRIMARY KEY (created_date, currency_id, breakdown, member_id)
);

-- One row per day, currency, type and due day of payments, and whether they are paid: payments as they are now.
CREATE TABLE mart_payments_day (
    created_date date REFERENCES dim_date, -- by day: day the payments were created (UTC)
    currency_id int REFERENCES dim_currency, -- currency of the amount
    payment_type_id int REFERENCES dim_payment_type, -- what kind of payment
    payment_date date REFERENCES dim_date, -- day they are due
    paid boolean, -- whether they have been paid
    payments bigint NOT NULL, -- number of payments
    amount numeric(38,2) NOT NULL, -- their sum, in the currency
    largest numeric(10,2), -- the largest of them, in the currency
    PRIMARY KEY (created_date, currency_id, payment_type_id, payment_date, paid)
);
