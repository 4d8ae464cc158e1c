"""Tests of totesys_assets/assets/."""
