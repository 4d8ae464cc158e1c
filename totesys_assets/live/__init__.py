"""``totesys up``: Dagster's processes and the simulated traffic on one machine, and messages about both."""
