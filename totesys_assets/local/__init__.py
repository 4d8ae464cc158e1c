"""What stands in for the outside world when the pipeline runs on one machine."""
