"""The two schemas as DDL, and what Python reads out of them."""
