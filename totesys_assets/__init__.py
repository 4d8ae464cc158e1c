"""ToteSys to a star-schema warehouse, with full history: assets for Dagster, and ``read`` for analysts."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from totesys_assets.reader import read, read_arrow

__all__ = ["read", "read_arrow"]


def __getattr__(name: str) -> Any:
    """Import what analysts use when they use it: every process of the pipeline imports this package too."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from totesys_assets import reader

    return getattr(reader, name)
