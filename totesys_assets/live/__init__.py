"""Everything live on one machine, as ``totesys up`` runs it: Dagster's processes, the traffic, what is told of them."""
