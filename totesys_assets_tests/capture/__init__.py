"""Tests of totesys_assets/capture/."""
