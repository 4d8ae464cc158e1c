"""The outside world: ToteSys, the lake and the warehouse, each behind one class that knows nothing of Dagster."""
