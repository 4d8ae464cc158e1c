"""Tests of totesys_assets/live/."""
