"""When what is materialised, checked and told: partitions, jobs, schedules, sensors, the audit's checks and alerts."""
