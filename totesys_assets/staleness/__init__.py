"""What is stale: the look at source, lake and warehouse, and the decision made of it. Dagster is not imported here."""
