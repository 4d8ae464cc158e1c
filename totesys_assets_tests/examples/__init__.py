"""Tests of changes that docs/how-to/change.md shows, to be run on a copy of the package: see test_example_mart.py."""
