"""ToteSys to a star-schema warehouse, with full history: assets for Dagster, and ``read`` for analysts."""

from totesys_assets.reader import read, read_arrow

__all__ = ["read", "read_arrow"]
