"""ToteSys to a star-schema warehouse, with full history: assets for Dagster, and ``read`` for analysts."""

import os
from typing import TYPE_CHECKING, Any

from totesys_assets.allocators import keep_little

if TYPE_CHECKING:
    from totesys_assets.reader import read, read_arrow

keep_little()
# What delta-rs warns of, credentials that it did not find in one of many places, says nothing to a user; errors are
# raised.
os.environ.setdefault("RUST_LOG", "off")

__all__ = ["read", "read_arrow"]


def __getattr__(name: str) -> Any:
    """Import what analysts use when they use it: every process of the pipeline imports this package too."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from totesys_assets import reader

    return getattr(reader, name)
