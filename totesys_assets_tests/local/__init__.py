"""Tests of totesys_assets/local/."""
