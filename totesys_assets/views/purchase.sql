-- One row per purchase order as it is now, with the names of what it refers to.
SELECT
    purchase.purchase_order_id, -- the purchase order
    purchase.created_date, -- day it was created (UTC)
    purchase.created_time, -- time of day it was created
    purchase.staff_id, -- who ordered
    staff.first_name || ' ' || staff.last_name AS staff, -- name of who ordered
    staff.department_name AS department, -- department of who ordered, as it is now
    purchase.counterparty_id AS supplier_id, -- who sells to us
    supplier.counterparty_legal_name AS supplier, -- name of who sells to us
    purchase.item_code, -- code of the item
    currency.currency_code AS currency, -- ISO 4217 code of the money
    purchase.item_quantity AS items, -- number of items
    purchase.item_unit_price AS unit_price, -- price of one
    purchase.item_quantity * purchase.item_unit_price AS cost, -- items times price, in the currency
    purchase.agreed_payment_date, -- day the payment was agreed for
    purchase.agreed_delivery_date, -- day the delivery was agreed for; ToteSys does not keep when it was delivered
    purchase._recorded_at -- when this state was first seen
FROM current_purchase_order AS purchase
LEFT JOIN dim_staff AS staff ON staff.staff_id = purchase.staff_id
LEFT JOIN dim_counterparty AS supplier ON supplier.counterparty_id = purchase.counterparty_id
LEFT JOIN dim_currency AS currency ON currency.currency_id = purchase.currency_id
