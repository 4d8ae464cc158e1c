"""ToteSys as a source: its snapshots, and whether its tables can be read in them. Knows nothing of Dagster."""
