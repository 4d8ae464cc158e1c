-- Every address, as a place of delivery.
SELECT
    address_id AS location_id,
    address_line_1,
    address_line_2,
    district,
    city,
    postal_code,
    country,
    phone,
    _operation = 'delete' AS _is_deleted,
    _recorded_at
FROM latest.address
