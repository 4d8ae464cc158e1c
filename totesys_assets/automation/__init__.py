"""When and what to materialise: partitions, the decision, the sensor, schedules and jobs."""
