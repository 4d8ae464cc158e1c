"""Tests of totesys_assets/source/."""
