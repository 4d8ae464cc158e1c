"""Tests of the platform: real PostgreSQL, real Delta tables, real Dagster."""
