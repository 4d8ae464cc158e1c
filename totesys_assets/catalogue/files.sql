-- Files that people drop beside ToteSys, each table in a folder of its name: CSV with a line of column names, or JSON.

-- One row per month, department and currency: what the orders of the month are to be worth.
CREATE TABLE sales_target (
    target_month date, -- first day of the month
    department_name varchar(100), -- department of who sells, as ToteSys spells it
    currency_code varchar(3), -- three-letter ISO 4217 code of the amount
    amount numeric(18,2) NOT NULL, -- what the department's orders of the month are to be worth
    PRIMARY KEY (target_month, department_name, currency_code)
);

-- One row per month, country and currency: what was spent on marketing.
CREATE TABLE marketing_spend (
    spend_month date, -- first day of the month
    country varchar(100), -- country of delivery, as ToteSys spells it
    currency_code varchar(3), -- three-letter ISO 4217 code of the amount
    amount numeric(18,2) NOT NULL, -- what was spent
    PRIMARY KEY (spend_month, country, currency_code)
);
