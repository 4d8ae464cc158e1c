"""When assets are materialised and checked, and who is told: jobs, schedules, sensors, the audit's checks, alerts."""
