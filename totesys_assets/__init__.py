"""ToteSys to a star-schema warehouse, with full history: assets for Dagster, and ``read`` for analysts."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from totesys_assets.reader import read, read_arrow

# delta-rs reads this when it is imported. By itself it keeps for seconds what it has freed, in eight places: 130 MB
# more for a table of a million rows. Its thread would be in the way of forking (dagster_internals/run_worker.py).
os.environ.setdefault("_RJEM_MALLOC_CONF", "background_thread:false,narenas:2,dirty_decay_ms:100,muzzy_decay_ms:0")
# Arrow reads this when it is imported. By itself it keeps what it has freed: 120 MB more for a full load, in which
# several threads allocate and free batches.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
# So does DuckDB: 30 MB more for ten million rows.
os.environ.setdefault("DUCKDB_JE_MALLOC_CONF", "narenas:1,dirty_decay_ms:100,muzzy_decay_ms:0")
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
