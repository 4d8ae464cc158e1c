INSERT INTO design (created_at, design_name, file_location, file_name, last_updated)
VALUES (CURRENT_TIMESTAMP, %s, %s, %s, CURRENT_TIMESTAMP)
RETURNING design_id
