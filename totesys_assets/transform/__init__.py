"""From the ingestion zone to the processed zone: star SELECTs run over the lake. Knows nothing of Dagster."""
