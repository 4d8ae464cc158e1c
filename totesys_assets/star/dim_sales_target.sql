-- Every sales target, known by its month, currency and department.
-- A month that is given by another day than its first is a row of its own.
SELECT
    strftime(target_month, '%Y-%m') || CASE WHEN EXTRACT(DAY FROM target_month) = 1 THEN '' ELSE strftime(target_month, '-%d') END
    || ' ' || currency_code || ' ' || department_name AS sales_target_id,
    target_month,
    department_name,
    currency_code,
    amount,
    _operation = 'delete' AS _is_deleted,
    _recorded_at
FROM latest.sales_target
