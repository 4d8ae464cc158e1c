"""Tests of what is in the folder ``deploy``."""
