-- Every sales target, known by its month, currency and department.
SELECT
    strftime(target_month, '%Y-%m') || ' ' || currency_code || ' ' || department_name AS sales_target_id,
    target_month,
    department_name,
    currency_code,
    amount,
    _operation = 'delete' AS _is_deleted,
    _recorded_at
FROM latest.sales_target
