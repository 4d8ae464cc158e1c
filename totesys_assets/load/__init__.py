"""From the processed zone to the warehouse: staging and merge. Knows nothing of Dagster."""
