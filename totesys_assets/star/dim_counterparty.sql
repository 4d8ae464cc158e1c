-- Every counterparty with its legal address; follows a change of either.
SELECT
    counterparty.counterparty_id,
    counterparty.counterparty_legal_name,
    address.address_line_1 AS counterparty_legal_address_line_1,
    address.address_line_2 AS counterparty_legal_address_line_2,
    address.district AS counterparty_legal_district,
    address.city AS counterparty_legal_city,
    address.postal_code AS counterparty_legal_postal_code,
    address.country AS counterparty_legal_country,
    address.phone AS counterparty_legal_phone_number,
    counterparty._operation = 'delete' AS _is_deleted,
    GREATEST(counterparty._recorded_at, address._recorded_at) AS _recorded_at
FROM latest.counterparty AS counterparty
INNER JOIN latest.address AS address ON address.address_id = counterparty.legal_address_id
