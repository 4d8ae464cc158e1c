"""Tests of totesys_assets/catalogue/."""
