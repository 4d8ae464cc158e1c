-- How did an order come to be as it is?
-- Every version that was seen, oldest first, with what changed in it. Numbers are those of the version, names those of
-- today. A silent update left ToteSys's last_updated as it was. What happened between two captures is one version.
WITH versions AS (
    SELECT
        version.valid_from,
        version.valid_to,
        version.is_deleted,
        version.last_updated_date + version.last_updated_time AS last_updated,
        jsonb_build_object(
            'created', to_char(version.created_date + version.created_time, 'YYYY-MM-DD HH24:MI:SS.MS'),
            'staff', concat_ws(' ', version.sales_staff_id, staff.first_name, staff.last_name),
            'customer', concat_ws(' ', version.counterparty_id, customer.counterparty_legal_name),
            'design', concat_ws(' ', version.design_id, design.design_name),
            'units', version.units_sold,
            'unit price', version.unit_price,
            'currency', coalesce(currency.currency_code, version.currency_id::text),
            'agreed payment', version.agreed_payment_date,
            'agreed delivery', version.agreed_delivery_date,
            'deliver to', concat_ws(' ', version.agreed_delivery_location_id, location.city, location.country)
        ) AS content
    FROM history_sales_order AS version
    LEFT JOIN dim_staff AS staff ON staff.staff_id = version.sales_staff_id
    LEFT JOIN dim_counterparty AS customer USING (counterparty_id)
    LEFT JOIN dim_design AS design USING (design_id)
    LEFT JOIN dim_currency AS currency USING (currency_id)
    LEFT JOIN dim_location AS location ON location.location_id = version.agreed_delivery_location_id
    WHERE %(subject)s = 'sales_order' AND version.sales_order_id = %(number)s
    UNION ALL
    SELECT
        version.valid_from,
        version.valid_to,
        version.is_deleted,
        version.last_updated_date + version.last_updated_time,
        jsonb_build_object(
            'created', to_char(version.created_date + version.created_time, 'YYYY-MM-DD HH24:MI:SS.MS'),
            'staff', concat_ws(' ', version.staff_id, staff.first_name, staff.last_name),
            'supplier', concat_ws(' ', version.counterparty_id, supplier.counterparty_legal_name),
            'item', version.item_code,
            'items', version.item_quantity,
            'unit price', version.item_unit_price,
            'currency', coalesce(currency.currency_code, version.currency_id::text),
            'agreed payment', version.agreed_payment_date,
            'agreed delivery', version.agreed_delivery_date,
            'deliver to', concat_ws(' ', version.agreed_delivery_location_id, location.city, location.country)
        )
    FROM history_purchase_order AS version
    LEFT JOIN dim_staff AS staff ON staff.staff_id = version.staff_id
    LEFT JOIN dim_counterparty AS supplier USING (counterparty_id)
    LEFT JOIN dim_currency AS currency USING (currency_id)
    LEFT JOIN dim_location AS location ON location.location_id = version.agreed_delivery_location_id
    WHERE %(subject)s = 'purchase_order' AND version.purchase_order_id = %(number)s
),
compared AS (
    SELECT
        *,
        row_number() OVER seen AS version,
        lag(content) OVER seen AS earlier,
        lag(is_deleted) OVER seen AS was_deleted,
        lag(last_updated) OVER seen AS was_updated
    FROM versions
    WINDOW seen AS (ORDER BY valid_from, is_deleted)
)
SELECT
    version,
    valid_from,
    valid_to,
    CASE
        WHEN is_deleted THEN 'deleted'
        WHEN earlier IS NULL THEN 'first seen'
        WHEN was_deleted THEN 'came back'
        WHEN last_updated = was_updated THEN 'updated silently'
        ELSE 'updated'
    END AS what_happened,
    CASE
        WHEN is_deleted THEN ''
        WHEN earlier IS NULL THEN
            (SELECT string_agg(key || ' ' || value, ', ' ORDER BY key) FROM jsonb_each_text(content))
        ELSE coalesce((
            SELECT string_agg(key || ' ' || coalesce(earlier ->> key, '–') || ' → ' || value, ', ' ORDER BY key)
            FROM jsonb_each_text(content)
            WHERE value IS DISTINCT FROM earlier ->> key
        ), '')
    END AS what_changed,
    last_updated
FROM compared
ORDER BY version
