"""The warehouse, a schema of PostgreSQL: its sessions, tables, views and notes. Knows nothing of Dagster."""
