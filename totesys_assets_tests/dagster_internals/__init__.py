"""Tests of totesys_assets/dagster_internals/."""
