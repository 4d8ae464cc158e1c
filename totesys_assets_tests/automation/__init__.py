"""Tests of totesys_assets/automation/."""
