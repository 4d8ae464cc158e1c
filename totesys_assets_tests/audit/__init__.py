"""Tests of totesys_assets/audit/."""
