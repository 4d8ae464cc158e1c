"""Tests of what stands in AWS, against stand-ins of it. They need tools of their own: see servers.py."""
