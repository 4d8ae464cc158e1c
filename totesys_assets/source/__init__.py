"""The sources that tables are captured from, and one snapshot of each for all tables of a run. Nothing of Dagster."""
