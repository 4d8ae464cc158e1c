"""Tests of the project itself: its layout, its documents, its tests."""
