"""Tests of totesys_assets/commands/."""
