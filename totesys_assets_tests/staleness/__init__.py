"""Tests of totesys_assets/staleness/."""
