"""Tests of the engines: DuckDB is the yardstick, Spark is tried on Sail."""
