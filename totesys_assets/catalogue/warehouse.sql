-- The warehouse: a star schema. Official columns first; columns with a leading underscore are technical.
-- "by day:" declares that the table is partitioned by that column, in the lake and in Dagster. Of a fact's versions few
-- are no inserts: what changed is found by an index of them, without reading the others.

-- One row per calendar day, from the first year of trade to two years ahead, and every other day that a fact names.
CREATE TABLE dim_date (
    date_id date PRIMARY KEY, -- the day
    year int NOT NULL, -- calendar year
    month int NOT NULL, -- month of the year, 1 to 12
    day int NOT NULL, -- day of the month, 1 to 31
    day_of_week int NOT NULL, -- ISO day of the week: Monday is 1, Sunday 7
    day_name varchar NOT NULL, -- English name of the day
    month_name varchar NOT NULL, -- English name of the month
    quarter int NOT NULL -- quarter of the year: December is in 4
);

-- One row per member of staff, with the department as it is now.
CREATE TABLE dim_staff (
    staff_id int PRIMARY KEY, -- the member of staff
    first_name varchar NOT NULL, -- given name
    last_name varchar NOT NULL, -- family name
    department_name varchar NOT NULL, -- name of the department
    location varchar, -- where the department is
    email_address varchar NOT NULL, -- e-mail address at work
    _is_deleted boolean NOT NULL, -- the row is gone from ToteSys; kept because facts refer to it
    _recorded_at timestamptz NOT NULL -- when this state was first seen
);

-- One row per address: where orders are delivered.
CREATE TABLE dim_location (
    location_id int PRIMARY KEY, -- the address
    address_line_1 varchar NOT NULL, -- street
    address_line_2 varchar, -- more of the street
    district varchar, -- district or county
    city varchar NOT NULL, -- town or city
    postal_code varchar NOT NULL, -- postal code, leading zeros kept
    country varchar NOT NULL, -- country, as ToteSys writes it
    phone varchar NOT NULL, -- telephone number
    _is_deleted boolean NOT NULL, -- the row is gone from ToteSys; kept because facts refer to it
    _recorded_at timestamptz NOT NULL -- when this state was first seen
);

-- One row per country that an address names, and per other country that is known.
CREATE TABLE dim_country (
    country varchar PRIMARY KEY, -- country, as ToteSys writes it
    country_code varchar, -- three-letter ISO 3166-1 code; empty for a name that is not known
    map_code varchar, -- three-digit ISO 3166-1 code, by which maps know it
    longitude numeric(6,2), -- of a point in it, degrees east
    latitude numeric(5,2), -- of a point in it, degrees north
    is_small boolean NOT NULL -- too small to be seen on a map of the world
);

-- One row per currency.
CREATE TABLE dim_currency (
    currency_id int PRIMARY KEY, -- the currency
    currency_code varchar NOT NULL, -- ISO 4217 code
    currency_name varchar NOT NULL, -- ISO 4217 name; the code itself where ISO 4217 does not know it
    _is_deleted boolean NOT NULL, -- the row is gone from ToteSys; kept because facts refer to it
    _recorded_at timestamptz NOT NULL -- when this state was first seen
);

-- One row per design of a tote bag.
CREATE TABLE dim_design (
    design_id int PRIMARY KEY, -- the design
    design_name varchar NOT NULL, -- its name
    file_location varchar NOT NULL, -- folder of its file
    file_name varchar NOT NULL, -- name of its file
    _is_deleted boolean NOT NULL, -- the row is gone from ToteSys; kept because facts refer to it
    _recorded_at timestamptz NOT NULL -- when this state was first seen
);

-- One row per counterparty, with its legal address as it is now.
CREATE TABLE dim_counterparty (
    counterparty_id int PRIMARY KEY, -- the counterparty
    counterparty_legal_name varchar NOT NULL, -- its legal name
    counterparty_legal_address_line_1 varchar NOT NULL, -- street of the legal address
    counterparty_legal_address_line_2 varchar, -- more of the street
    counterparty_legal_district varchar, -- district or county
    counterparty_legal_city varchar NOT NULL, -- town or city
    counterparty_legal_postal_code varchar NOT NULL, -- postal code, leading zeros kept
    counterparty_legal_country varchar NOT NULL, -- country, as ToteSys writes it
    counterparty_legal_phone_number varchar NOT NULL, -- telephone number
    _is_deleted boolean NOT NULL, -- the row is gone from ToteSys; kept because facts refer to it
    _recorded_at timestamptz NOT NULL -- when this state was first seen
);

-- One row per type of payment.
CREATE TABLE dim_payment_type (
    payment_type_id int PRIMARY KEY, -- the type of payment
    payment_type_name varchar NOT NULL, -- SALES_RECEIPT, SALES_REFUND, PURCHASE_PAYMENT or PURCHASE_REFUND
    _is_deleted boolean NOT NULL, -- the row is gone from ToteSys; kept because facts refer to it
    _recorded_at timestamptz NOT NULL -- when this state was first seen
);

-- One row per target: what a department's orders of a month are to be worth. It comes from files.
CREATE TABLE dim_sales_target (
    sales_target_id varchar PRIMARY KEY, -- month, currency and department, as 2026-01 GBP Sales
    target_month date NOT NULL, -- first day of the month
    department_name varchar NOT NULL, -- department of who sells
    currency_code varchar NOT NULL, -- ISO 4217 code of the amount
    amount numeric(18,2) NOT NULL, -- what the department's orders of the month are to be worth
    _is_deleted boolean NOT NULL, -- the target is in no file any more
    _recorded_at timestamptz NOT NULL -- when this state was first seen
);

-- One row per month, country and currency: what was spent on marketing. It comes from files.
CREATE TABLE dim_marketing_spend (
    marketing_spend_id varchar PRIMARY KEY, -- month, currency and country, as 2026-01 GBP Norway
    spend_month date NOT NULL, -- first day of the month
    country varchar NOT NULL, -- country of delivery
    currency_code varchar NOT NULL, -- ISO 4217 code of the amount
    amount numeric(18,2) NOT NULL, -- what was spent
    _is_deleted boolean NOT NULL, -- the row is in no file any more
    _recorded_at timestamptz NOT NULL -- when this state was first seen
);

-- One row per transaction: what a payment was for.
CREATE TABLE dim_transaction (
    transaction_id int PRIMARY KEY, -- the transaction
    transaction_type varchar NOT NULL, -- SALE or PURCHASE
    sales_order_id int, -- the sales order, if it is a sale
    purchase_order_id int, -- the purchase order, if it is a purchase
    _created_date date NOT NULL, -- by day: day it was created
    _is_deleted boolean NOT NULL, -- the row is gone from ToteSys; kept because facts refer to it
    _recorded_at timestamptz NOT NULL -- when this state was first seen
);

-- One row per version of a sales order. current_sales_order has the newest, history_sales_order their validity.
CREATE TABLE fact_sales_order (
    sales_record_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- this record, never renumbered
    sales_order_id int NOT NULL, -- the sales order
    created_date date NOT NULL REFERENCES dim_date, -- by day: day the order was created (UTC)
    created_time time NOT NULL, -- time of day it was created, to the millisecond
    last_updated_date date NOT NULL REFERENCES dim_date, -- day of ToteSys's last_updated, which silent updates leave as it was
    last_updated_time time NOT NULL, -- time of day of ToteSys's last_updated
    sales_staff_id int NOT NULL REFERENCES dim_staff, -- who sold
    counterparty_id int NOT NULL REFERENCES dim_counterparty, -- who bought
    units_sold int NOT NULL, -- number of bags
    unit_price numeric(10,2) NOT NULL, -- price of one, in the order's currency
    currency_id int NOT NULL REFERENCES dim_currency, -- currency of the price
    design_id int NOT NULL REFERENCES dim_design, -- design of the bags
    agreed_payment_date date NOT NULL REFERENCES dim_date, -- day the payment was agreed for
    agreed_delivery_date date NOT NULL REFERENCES dim_date, -- day the delivery was agreed for
    agreed_delivery_location_id int NOT NULL REFERENCES dim_location, -- where to deliver
    _operation varchar NOT NULL, -- how this version came to be: insert, update or delete
    _recorded_at timestamptz NOT NULL, -- when this version was first seen
    UNIQUE (sales_order_id, created_date, _recorded_at)
);
CREATE INDEX fact_sales_order_changes ON fact_sales_order (_recorded_at) WHERE _operation <> 'insert';

-- One row per version of a purchase order. current_purchase_order has the newest, history_purchase_order their validity.
CREATE TABLE fact_purchase_order (
    purchase_record_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- this record, never renumbered
    purchase_order_id int NOT NULL, -- the purchase order
    created_date date NOT NULL REFERENCES dim_date, -- by day: day the order was created (UTC)
    created_time time NOT NULL, -- time of day it was created, to the millisecond
    last_updated_date date NOT NULL REFERENCES dim_date, -- day of ToteSys's last_updated, which silent updates leave as it was
    last_updated_time time NOT NULL, -- time of day of ToteSys's last_updated
    staff_id int NOT NULL REFERENCES dim_staff, -- who ordered
    counterparty_id int NOT NULL REFERENCES dim_counterparty, -- who sells to us
    item_code varchar NOT NULL, -- code of the item
    item_quantity int NOT NULL, -- number of items
    item_unit_price numeric(10,2) NOT NULL, -- price of one, in the order's currency
    currency_id int NOT NULL REFERENCES dim_currency, -- currency of the price
    agreed_delivery_date date NOT NULL REFERENCES dim_date, -- day the delivery was agreed for
    agreed_payment_date date NOT NULL REFERENCES dim_date, -- day the payment was agreed for
    agreed_delivery_location_id int NOT NULL REFERENCES dim_location, -- where to deliver
    _operation varchar NOT NULL, -- how this version came to be: insert, update or delete
    _recorded_at timestamptz NOT NULL, -- when this version was first seen
    UNIQUE (purchase_order_id, created_date, _recorded_at)
);
CREATE INDEX fact_purchase_order_changes ON fact_purchase_order (_recorded_at) WHERE _operation <> 'insert';

-- One row per version of a payment. current_payment has the newest, history_payment their validity.
CREATE TABLE fact_payment (
    payment_record_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- this record, never renumbered
    payment_id int NOT NULL, -- the payment
    created_date date NOT NULL REFERENCES dim_date, -- by day: day the payment was created (UTC)
    created_time time NOT NULL, -- time of day it was created, to the millisecond
    last_updated_date date NOT NULL REFERENCES dim_date, -- day of ToteSys's last_updated, which moves when paid flips
    last_updated_time time NOT NULL, -- time of day of ToteSys's last_updated
    transaction_id int NOT NULL REFERENCES dim_transaction, -- the transaction it settles; not always the same number
    counterparty_id int NOT NULL REFERENCES dim_counterparty, -- who pays or is paid
    payment_amount numeric(10,2) NOT NULL, -- quantity times price, to the penny
    currency_id int NOT NULL REFERENCES dim_currency, -- currency of the amount
    payment_type_id int NOT NULL REFERENCES dim_payment_type, -- what kind of payment
    paid boolean NOT NULL, -- whether it has been paid
    payment_date date NOT NULL REFERENCES dim_date, -- day the payment is due
    _operation varchar NOT NULL, -- how this version came to be: insert, update or delete
    _recorded_at timestamptz NOT NULL, -- when this version was first seen
    UNIQUE (payment_id, created_date, _recorded_at)
);
CREATE INDEX fact_payment_changes ON fact_payment (_recorded_at) WHERE _operation <> 'insert';
-- mart_payments_day says on which days the largest unpaid payments are. This finds them there.
CREATE INDEX fact_payment_unpaid ON fact_payment (created_date, payment_date) WHERE NOT paid;

-- One row per version of a euro reference rate, as it was published. mart_exchange_rate has a rate for every day.
CREATE TABLE fact_exchange_rate (
    exchange_rate_record_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- this record, never renumbered
    exchange_rate_id varchar NOT NULL, -- day and currency, as 2024-08-19 USD
    rate_date date NOT NULL, -- by day: day the rate was published
    currency_code varchar NOT NULL, -- ISO 4217 code
    units_per_euro numeric(18,8) NOT NULL, -- units of the currency for one euro
    _operation varchar NOT NULL, -- how this version came to be: insert, update or delete
    _recorded_at timestamptz NOT NULL, -- when this version was first seen
    UNIQUE (exchange_rate_id, rate_date, _recorded_at)
);
CREATE INDEX fact_exchange_rate_changes ON fact_exchange_rate (_recorded_at) WHERE _operation <> 'insert';
