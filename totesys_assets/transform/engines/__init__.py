"""Engines: what turns a SELECT over versions of the lake into rows of a star table or mart. DuckDB, or Spark."""
