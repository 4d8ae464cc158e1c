"""What the last look found in ToteSys, kept for the next: rows and hash of every day, and in which snapshot.

Belongs here: keeping it in a file, and its form. Does not belong here: what may be concluded from it (snapshot.py).

These are facts about the source alone. Neither the ledger nor the lake has a say in them, so that they stay true
whatever becomes of these. Without the file, the next look reads all rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

# Rows and hash by day (fingerprint.py).
ByDay = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Fact:
    """What a table was in one snapshot.

    ``made_of`` names the table's identity and structure, and the query; ``lifetime`` and ``text`` the snapshot.
    """

    made_of: str
    lifetime: str
    text: str
    days: ByDay


class Remembered:
    """The newest fact of each table. They are kept at ``path``, or if it is None in this object."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._facts: dict[str, Fact] = {}
        self._is_read, self._is_new = False, False

    def read_again(self) -> None:
        """Let the next question be answered by what any process kept last."""
        self._is_read = False

    def of(self, table: str) -> Fact | None:
        """The fact of a table, if there is one. A file of another form is as none."""
        if self._path is not None and not self._is_read:
            self._facts, self._is_read, self._is_new = {}, True, False
            with suppress(OSError, ValueError, TypeError, AttributeError):
                kept = json.loads(self._path.read_text(encoding="utf-8"))
                self._facts = {name: _fact(**each) for name, each in kept.items()}
        return self._facts.get(table)

    def note(self, table: str, fact: Fact) -> None:
        """Take a newer fact."""
        if self.of(table) != fact:
            self._facts[table], self._is_new = fact, True

    def save(self) -> None:
        """Keep the facts for other processes: all or nothing, for a file that was cut off could be read as another."""
        if self._path is None or not self._is_new:
            return
        with suppress(OSError):  # where nothing may be written, the next look reads all rows
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new = self._path.with_name(f"{self._path.name}.{os.getpid()}")
            new.write_text(json.dumps({name: asdict(each) for name, each in self._facts.items()}), encoding="utf-8")
            new.replace(self._path)
            self._is_new = False


def _fact(made_of: str, lifetime: str, text: str, days: dict[str, tuple[int, int]]) -> Fact:
    return Fact(made_of, lifetime, text, {day: (int(rows), int(hash_)) for day, (rows, hash_) in days.items()})
