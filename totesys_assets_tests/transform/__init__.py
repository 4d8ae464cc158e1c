"""Tests of totesys_assets/transform/."""
