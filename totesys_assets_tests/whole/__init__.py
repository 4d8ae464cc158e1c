"""Tests of the platform as a whole: whatever happens to it."""
