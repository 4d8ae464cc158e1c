-- One row per sales order as it is now, with the names of what it refers to.
SELECT
    sale.sales_order_id, -- the sales order
    sale.created_date, -- day it was created (UTC)
    sale.created_time, -- time of day it was created
    sale.sales_staff_id AS staff_id, -- who sold
    staff.first_name || ' ' || staff.last_name AS staff, -- name of who sold
    staff.department_name AS department, -- department of who sold, as it is now
    sale.counterparty_id AS customer_id, -- who bought
    customer.counterparty_legal_name AS customer, -- name of who bought
    sale.design_id, -- design of the bags
    design.design_name AS design, -- its name
    location.city, -- where to deliver
    location.country, -- country of delivery, as ToteSys writes it
    country.country_code, -- its ISO 3166-1 code; empty for a name that is not known
    currency.currency_code AS currency, -- ISO 4217 code of the money
    sale.units_sold AS units, -- number of bags
    sale.unit_price, -- price of one
    sale.units_sold * sale.unit_price AS revenue, -- units times price, in the currency
    sale.agreed_payment_date, -- day the payment was agreed for
    sale.agreed_delivery_date, -- day the delivery was agreed for; ToteSys does not keep when it was delivered
    sale._recorded_at -- when this state was first seen
FROM current_sales_order AS sale
LEFT JOIN dim_staff AS staff ON staff.staff_id = sale.sales_staff_id
LEFT JOIN dim_counterparty AS customer ON customer.counterparty_id = sale.counterparty_id
LEFT JOIN dim_design AS design ON design.design_id = sale.design_id
LEFT JOIN dim_location AS location ON location.location_id = sale.agreed_delivery_location_id
LEFT JOIN dim_country AS country ON country.country = location.country
LEFT JOIN dim_currency AS currency ON currency.currency_id = sale.currency_id
