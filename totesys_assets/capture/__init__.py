"""Capture by comparison: what the source holds now, set against what the lake holds. Knows nothing of Dagster."""
