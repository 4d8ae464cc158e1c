"""The terminal: what all commands print with."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import rich.console
from rich.cells import cell_len
from rich.markup import escape
from rich.measure import Measurement
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

# What a text of a database could command a terminal with: control characters, those that turn the direction of the rest
# of a line, and those that end a line for some programs only.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class Console(rich.console.Console):
    """Prints what it is given, without what would have the terminal do something else."""

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """The segments of ``renderable``; the colours and other commands of rich come later."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(_COMMANDS.sub("", segment.text), segment.style)

    def render_str(self, text: str, **how: Any) -> Text:
        """A text as it is: what looks like markup or the name of an emoji in it is a part of it."""
        return super().render_str(text, **{**how, "markup": False, "emoji": False})


out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_PROGRAM = "totesys"
_UNDER_A_LONG_MARK = 4
# Cells of a table up to this long are not broken: a time, a name, a number.
_SHORT, _WIDEST = 20, 10_000


def silence() -> None:
    """Print nowhere from now on: the terminal is gone, and to write to it would fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def say(console: Console, mark: str, text: str | Text = "") -> None:
    """Print ``mark`` (with markup) and ``text`` (as it is, or a Text with styles of its own).

    A terminal gets lines that end between words; those after the first begin below the text. A word that is longer than
    a line stays whole: the terminal breaks it, and a path or URL can be copied. A file or pipe gets one line, which
    other programs can search.
    """
    head, body = Text.from_markup(mark), Text(text) if isinstance(text, str) else text
    if not console.is_terminal:
        console.print(head + Text(" ").join(line for line in body.split() if line), soft_wrap=True)
        return
    indent = head.cell_len
    if indent > console.width // 2:
        head.rstrip()
        console.print(head, soft_wrap=True)
        indent = _UNDER_A_LONG_MARK
        head = Text(" " * indent)
    for paragraph in body.split(allow_blank=True):
        for line in paragraph.divide(_beginnings(paragraph.plain, console.width - indent)):
            line.rstrip()
            console.print(head + line, soft_wrap=True)
            head = Text(" " * indent)


def command(console: Console, text: str) -> None:
    """Print a command on one line, however long: only so can it be copied as a whole."""
    console.print(Text(text), soft_wrap=True)


def show(console: Console, grid: Table) -> None:
    """Print a table with all that is in it. In a terminal that is too narrow for it, each row is some lines.

    Of columns that do not say themselves how they wrap, only long cells do, between words.
    """
    for column in grid.columns:
        if column.overflow == "ellipsis":
            column.overflow = "fold"
            cells = [str(each) for each in (column.header, *column.cells)]
            if all(cell_len(each) <= _SHORT or " " not in each for each in cells):
                column.no_wrap, column.min_width = True, max(map(cell_len, cells))
    needed = Measurement.get(console, console.options.update(max_width=_WIDEST), grid).minimum
    if console.is_terminal and needed > console.width:
        _show_rows(console, grid)
        return
    wide = console.options.update(width=max(console.width, needed))
    console.print(Segments([*console.render(grid, wide)]), crop=False)


def _show_rows(console: Console, grid: Table) -> None:
    names = [" ".join(str(column.header).split()) for column in grid.columns]
    names[1:] = [f"  {name}" for name in names[1:]]
    # A mark that fills more than half of a line gets one for itself.
    widest = min(max(map(cell_len, names)), console.width // 2 - 1)
    for row in zip(*(column.cells for column in grid.columns), strict=True):
        for name, cell in zip(names, row, strict=True):
            if cell:
                say(console, f"[bold]{escape(name)}[/bold]{' ' * (widest - cell_len(name))} ", cell)


def _beginnings(text: str, width: int) -> list[int]:
    """Where in ``text`` all lines but the first begin, each with a word, if lines have ``width`` cells."""
    found, used = [], 0
    for word in re.finditer(r"\s*\S+\s*", text):
        if used and used + cell_len(word.group().rstrip()) > width:
            found.append(word.start())
            used = 0
        used += cell_len(word.group())
    return found


def reporter(console: Console) -> Callable[[str], None]:
    """Something that prints a line of progress."""
    return lambda text: say(console, "[dim]·[/dim] ", text)


def program() -> str:
    """What to type for ``totesys`` in this shell: its name, or its path as long as PATH does not lead to it."""
    started = Path(sys.argv[0])
    if started.name != _PROGRAM:  # as a module, or within another program
        started = Path(sys.executable).with_name(_PROGRAM)
    found = shutil.which(_PROGRAM)
    if not started.exists() or (found is not None and started.samefile(found)):
        return _PROGRAM
    return shlex.quote(str(started))


def address(url: str) -> str:
    """A database's address without its password."""
    import psycopg.conninfo  # here: --help should not wait for it

    parts = psycopg.conninfo.conninfo_to_dict(url)
    user = f"{parts['user']}@" if parts.get("user") else ""
    port = f":{parts['port']}" if parts.get("port") else ""
    return f"postgresql://{user}{parts.get('host') or 'localhost'}{port}/{parts.get('dbname') or ''}"
