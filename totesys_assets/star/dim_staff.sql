-- Every member of staff with the department; follows a change of either.
SELECT
    staff.staff_id,
    staff.first_name,
    staff.last_name,
    department.department_name,
    department.location,
    staff.email_address,
    staff._operation = 'delete' AS _is_deleted,
    GREATEST(staff._recorded_at, department._recorded_at) AS _recorded_at
FROM latest.staff AS staff
INNER JOIN latest.department AS department ON department.department_id = staff.department_id
