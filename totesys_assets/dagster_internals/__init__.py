"""Dagster's inside: the storages, launcher, coordinator and executor that replace parts of Dagster."""
