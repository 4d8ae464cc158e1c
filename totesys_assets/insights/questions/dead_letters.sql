-- How many rows of each source are dead letters, and since when?
-- Dead letters are rows that break a type or a rule. They are kept aside, in the lake, until they are mended in their
-- source, and are in no figure. Noted with each load of what is made of a table: a table that has not been loaded since
-- these notes began is not listed.
SELECT table_name, open_rows, since, noted_at
FROM _dead_letter
ORDER BY open_rows DESC, table_name
