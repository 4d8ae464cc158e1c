"""Tests of totesys_assets/load/."""
