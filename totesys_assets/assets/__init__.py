"""The assets: factories over the catalogue that tie capture, transform and load to Dagster."""
