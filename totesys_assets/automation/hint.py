"""The command line's hint: the mark under which nothing was left to do, kept in Dagster's key-value store.

The sensor keeps the same mark in its cursor. Losing either costs one comparison of fingerprints, nothing else.
"""

import dagster as dg

_KEY = "totesys_assets/mark"


def recall(instance: dg.DagsterInstance) -> str | None:
    """The last mark, or None."""
    return instance.run_storage.get_cursor_values({_KEY}).get(_KEY)


def remember(instance: dg.DagsterInstance, mark: str) -> None:
    """Keep a mark for the next look."""
    instance.run_storage.set_cursor_values({_KEY: mark})
