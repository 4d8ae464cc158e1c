"""Tests of totesys_assets/warehouse/."""
