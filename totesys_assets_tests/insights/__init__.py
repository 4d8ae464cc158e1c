"""Tests of totesys_assets/insights/."""
