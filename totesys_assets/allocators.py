"""How much freed memory the allocators of this process keep: little, for several threads allocate and free batches.

It must be said before the libraries that have an allocator of their own are imported.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

_SETTINGS = {
    # Of delta-rs. By itself it keeps for seconds what it has freed, in eight places: 130 MB more for a table of a
    # million rows. Its thread would be in the way of forking (dagster_internals/run_worker.py).
    "_RJEM_MALLOC_CONF": "background_thread:false,narenas:2,dirty_decay_ms:100,muzzy_decay_ms:0",
    # Of Arrow. By itself it keeps what it has freed: 120 MB more for a full load.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    # Of DuckDB: 30 MB more for ten million rows.
    "DUCKDB_JE_MALLOC_CONF": "narenas:1,dirty_decay_ms:100,muzzy_decay_ms:0",
}
# Of the system: in each of up to eight places for each processor, what is held keeps back what was freed around it.
_PLACES, _AT_MOST = "MALLOC_ARENA_MAX", 2
_M_ARENA_MAX = -8  # malloc.h


def keep_little() -> None:
    """Set them, but for what the environment sets. Systems without such settings go on as they are."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if _PLACES not in os.environ:  # which the system has read already
        with suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _AT_MOST)
