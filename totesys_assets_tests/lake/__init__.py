"""Tests of totesys_assets/lake/."""
