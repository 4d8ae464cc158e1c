"""The terminal: what all commands print with."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


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
