"""The terminal: what all commands print with."""

from __future__ import annotations

import os
from collections.abc import Callable

from rich.console import Console

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def silence() -> None:
    """Print nowhere from now on: the terminal is gone, and to write to it would fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def reporter(console: Console) -> Callable[[str], None]:
    """Something that prints a line of progress."""
    return lambda text: console.print(f"[dim]·[/dim] {text}", soft_wrap=True)


def address(url: str) -> str:
    """A database's address without its password."""
    import psycopg.conninfo  # here: --help should not wait for it

    parts = psycopg.conninfo.conninfo_to_dict(url)
    user = f"{parts['user']}@" if parts.get("user") else ""
    port = f":{parts['port']}" if parts.get("port") else ""
    return f"postgresql://{user}{parts.get('host') or 'localhost'}{port}/{parts.get('dbname') or ''}"
