"""Tests of totesys_assets/postgres/."""
