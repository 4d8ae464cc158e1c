-- How did an order come to be as it is?
-- Every version that was seen, oldest first, with what changed in it. Numbers are those of the version, names those of
-- today. A silent update left ToteSys's last_updated as it was. What happened between two captures is one version.
WITH versions AS (
    SELECT
        version.valid_from,
        version.valid_to,
        version.is_deleted,
        version.last_updated_date + version.last_updated_time AS last_updated,
        part.name,
        CASE part.name
            WHEN 'created' THEN to_char(version.created_date + version.created_time, 'YYYY-MM-DD HH24:MI:SS.MS')
            WHEN 'staff' THEN concat_ws(' ', version.sales_staff_id::text, staff.first_name, staff.last_name)
            WHEN 'customer' THEN concat_ws(' ', version.counterparty_id::text, customer.counterparty_legal_name)
            WHEN 'design' THEN concat_ws(' ', version.design_id::text, design.design_name)
            WHEN 'units' THEN version.units_sold::text
            WHEN 'unit price' THEN version.unit_price::text
            WHEN 'currency' THEN coalesce(currency.currency_code, version.currency_id::text)
            WHEN 'agreed payment' THEN version.agreed_payment_date::text
            WHEN 'agreed delivery' THEN version.agreed_delivery_date::text
            ELSE concat_ws(' ', version.agreed_delivery_location_id::text, location.city, location.country)
        END AS value
    FROM history_sales_order AS version
    CROSS JOIN (
        VALUES ('created'), ('staff'), ('customer'), ('design'), ('units'), ('unit price'), ('currency'),
            ('agreed payment'), ('agreed delivery'), ('deliver to')
    ) AS part (name)
    LEFT JOIN dim_staff AS staff ON staff.staff_id = version.sales_staff_id
    LEFT JOIN dim_counterparty AS customer ON customer.counterparty_id = version.counterparty_id
    LEFT JOIN dim_design AS design ON design.design_id = version.design_id
    LEFT JOIN dim_currency AS currency ON currency.currency_id = version.currency_id
    LEFT JOIN dim_location AS location ON location.location_id = version.agreed_delivery_location_id
    WHERE %(subject)s = 'sales_order' AND version.sales_order_id = %(number)s
    UNION ALL
    SELECT
        version.valid_from,
        version.valid_to,
        version.is_deleted,
        version.last_updated_date + version.last_updated_time,
        part.name,
        CASE part.name
            WHEN 'created' THEN to_char(version.created_date + version.created_time, 'YYYY-MM-DD HH24:MI:SS.MS')
            WHEN 'staff' THEN concat_ws(' ', version.staff_id::text, staff.first_name, staff.last_name)
            WHEN 'supplier' THEN concat_ws(' ', version.counterparty_id::text, supplier.counterparty_legal_name)
            WHEN 'item' THEN version.item_code
            WHEN 'items' THEN version.item_quantity::text
            WHEN 'unit price' THEN version.item_unit_price::text
            WHEN 'currency' THEN coalesce(currency.currency_code, version.currency_id::text)
            WHEN 'agreed payment' THEN version.agreed_payment_date::text
            WHEN 'agreed delivery' THEN version.agreed_delivery_date::text
            ELSE concat_ws(' ', version.agreed_delivery_location_id::text, location.city, location.country)
        END
    FROM history_purchase_order AS version
    CROSS JOIN (
        VALUES ('created'), ('staff'), ('supplier'), ('item'), ('items'), ('unit price'), ('currency'),
            ('agreed payment'), ('agreed delivery'), ('deliver to')
    ) AS part (name)
    LEFT JOIN dim_staff AS staff ON staff.staff_id = version.staff_id
    LEFT JOIN dim_counterparty AS supplier ON supplier.counterparty_id = version.counterparty_id
    LEFT JOIN dim_currency AS currency ON currency.currency_id = version.currency_id
    LEFT JOIN dim_location AS location ON location.location_id = version.agreed_delivery_location_id
    WHERE %(subject)s = 'purchase_order' AND version.purchase_order_id = %(number)s
),
compared AS (
    SELECT
        *,
        row_number() OVER seen AS version,
        lag(value) OVER seen AS earlier,
        lag(is_deleted) OVER seen AS was_deleted,
        lag(last_updated) OVER seen AS was_updated
    FROM versions
    WINDOW seen AS (PARTITION BY name ORDER BY valid_from, is_deleted)
)
SELECT
    version,
    valid_from,
    valid_to,
    CASE
        WHEN is_deleted THEN 'deleted'
        WHEN version = 1 THEN 'first seen'
        WHEN was_deleted THEN 'came back'
        WHEN last_updated = was_updated THEN 'updated silently'
        ELSE 'updated'
    END AS what_happened,
    coalesce(
        string_agg(
            CASE
                WHEN is_deleted THEN NULL
                WHEN version = 1 THEN name || ' ' || value
                WHEN value IS DISTINCT FROM earlier THEN name || ' ' || coalesce(earlier, '–') || ' → ' || value
            END,
            ', ' ORDER BY name
        ),
        ''
    ) AS what_changed,
    last_updated
FROM compared
GROUP BY version, valid_from, valid_to, is_deleted, was_deleted, last_updated, was_updated
ORDER BY version
