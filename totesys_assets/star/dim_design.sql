-- Every design.
SELECT
    design_id,
    design_name,
    file_location,
    file_name,
    _operation = 'delete' AS _is_deleted,
    _recorded_at
FROM latest.design
