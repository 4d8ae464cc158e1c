"""The bar that shows how far a run is, on a terminal.

Belongs here: drawing it, and what moves it. Does not belong here: the run, and what is printed when it has ended.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from totesys_assets.terminal import Console

# A terminal of so many columns has room for a long bar beside the name of any asset.
_WIDE = 120


class _WhatColumn(ProgressColumn):
    """What is done, in one line. If the terminal is narrow, it is cut, and not the numbers beside it."""

    def render(self, task: Task) -> Text:
        return Text(task.description, no_wrap=True, overflow="ellipsis")


@contextmanager
def progress_bar(console: Console, what: str, total: int) -> Iterator[None]:
    """A bar for the block, beside ``what`` is done, that moves with every asset that reports in its log."""
    columns = (
        SpinnerColumn(table_column=Column(no_wrap=True)),
        _WhatColumn(),
        BarColumn(bar_width=40 if console.width >= _WIDE else 10),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
    )
    with (
        _terminal_of(console) as terminal,
        Progress(*columns, console=terminal, transient=True, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task(what, total=total)

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                asset, separator, _ = record.getMessage().partition(": ")
                if separator and record.name.startswith("totesys_assets.assets."):
                    progress.update(task, advance=1, description=f"{what} · {asset}")

        handler, logger = Handler(), logging.getLogger("totesys_assets")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


@contextmanager
def _terminal_of(console: Console) -> Iterator[Console]:
    """A console that writes to the same terminal, also while Dagster has what the process prints go into a file."""
    try:
        there = os.dup(console.file.fileno())
    except (OSError, io.UnsupportedOperation):  # there is no such file: nothing else goes there
        yield console
        return
    with os.fdopen(there, "w", encoding=console.encoding, errors="totesys") as file:
        size = console.size
        yield Console(
            file=file, highlight=False, force_terminal=console.is_terminal, width=size.width, height=size.height
        )
