"""The ledger: what each stage did to each partition, appended after the data was committed.

Belongs here: reading and appending entries. An entry lost to a crash costs a comparison, never a row; the ledger is
also the audit trail. Does not belong here: deciding what is stale, which is staleness/decide.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import duckdb
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from totesys_assets import engine
from totesys_assets.engine import one_line
from totesys_assets.errors import PlatformError
from totesys_assets.lake.commit import LostRace, unwritable
from totesys_assets.lake.compact import tidy
from totesys_assets.lake.files import listed
from totesys_assets.lake.marks import mark
from totesys_assets.lake.read import register
from totesys_assets.lake.tables import LEDGER, Lake

_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("asset", pa.string()),
    ("partition", pa.string()),
    ("state", pa.string()),
    ("rows", pa.int64()),
    ("inserted", pa.int64()),
    ("updated", pa.int64()),
    ("deleted", pa.int64()),
    ("rejected", pa.int64()),
    ("missed", pa.int64()),
    ("anchor", pa.int64()),
    ("digest", pa.string()),
    ("recorded_at", pa.timestamp("us", tz="UTC")),
    ("run_id", pa.string()),
    ("sequence", pa.int64()),
]
_SCHEMA = pa.schema(_COLUMNS)
_DESCRIPTION = "One row per partition that a stage brought up to date"


# The state of a partition that lost its last row: its versions are still there, and are built and loaded as any others.
EMPTY = "empty"
# Asset of the entries that say of a table up to which transaction id it was captured completely (generation.py).
COMPLETE = "complete"
# Asset of the entries that say of a table which commit to the lake was the last that was noted.
LAST = "last"
# Asset of the entries that hold of a star table what it reads of all versions as sets (transform/sets.py).
SETS = "sets"


@dataclass(frozen=True)
class Entry:
    """One partition of one asset, as a stage left it.

    ``state`` is what it was made from: the source's fingerprint, or a digest of the states of its inputs; EMPTY for a
    partition that lost its rows, an empty text if nothing of it is held. ``rows`` are its current rows. The other
    counts are versions that this capture added; ``missed`` are those of them whose fingerprint had not changed.
    A count below zero takes back what was noted of versions that the lake has lost (lost_ledger.py).
    ``xmin_floor`` is the lowest transaction id that a row written after the capture can have; 0 if unknown. The column
    of the ledger is called "anchor". ``digest``: of the rows of a star table that is one set.
    """

    asset: str
    partition: str
    state: str
    rows: int
    recorded_at: datetime
    run_id: str
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    rejected: int = 0
    missed: int = 0
    xmin_floor: int = 0
    digest: str = ""

    @property
    def fingerprint(self) -> str:
        """The source's fingerprint, which a partition without rows has not."""
        return "" if self.state == EMPTY else self.state

    @property
    def content(self) -> str:
        """Differs whenever the rows do: their digest, or the state, and when rows changed though the state did not."""
        return self.digest or (f"{self.state} {self.recorded_at.isoformat()}" if self.missed else self.state)


def state_of(entries: Mapping[str, Entry], partition: str) -> str:
    """The state of a partition; nothing if there is no entry of it."""
    return entries[partition].state if partition in entries else ""


@dataclass(frozen=True)
class Total:
    """All that the ledger ever noted of one partition: versions added, and of these, missed by the fingerprint."""

    versions: int
    missed: int


@dataclass
class _Known:
    """What was read of a ledger: from which files, and the newest entries with the moments that they are ordered by.

    A refresh asks for them a dozen times, and each time has but a few new ones, in files of their own.
    """

    files: set[str] = field(default_factory=set)
    entries: dict[str, dict[str, Entry]] = field(default_factory=dict)
    moments: dict[str, dict[str, tuple[int, datetime]]] = field(default_factory=dict)

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Take the entries that are newer; a column that a file of long ago has not, or has empty, is 0."""
        for row in rows:
            entry = Entry(**{name: row[column] for name, column in _COLUMN_OF.items() if row.get(column) is not None})
            # Entries appended at the same moment bear the same number.
            moment = (row["sequence"], entry.recorded_at)
            moments = self.moments.setdefault(entry.asset, {})
            if entry.partition not in moments or moments[entry.partition] <= moment:
                moments[entry.partition] = moment
                self.entries.setdefault(entry.asset, {})[entry.partition] = entry


# The column of each field of an entry. Ledgers that exist call one of them by an older name.
_COLUMN_OF = {each.name: each.name for each in fields(Entry)} | {"xmin_floor": "anchor"}
_KNOWN: WeakKeyDictionary[Lake, _Known] = WeakKeyDictionary()
_LOCK = Lock()


class Ledger:
    """The ledger of one lake. States are compared, never ordered by time: clocks need not agree."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def mark(self) -> str:
        """Differs whenever something was noted, or it is another ledger."""
        with self._lake.moving(LEDGER) as table:
            return "none" if table is None else f"{table.metadata().id} {table.version()}"

    def newest(self, assets: Sequence[str] | None = None) -> dict[str, dict[str, Entry]]:
        """The newest entry of every partition: asset -> partition -> entry."""
        with self._lake.moving(LEDGER) as table, _LOCK, self._reading():
            if table is None:
                return {}
            known = _KNOWN.get(self._lake)
            files = _files(table)
            if known is None or not known.files <= files:
                known = _KNOWN[self._lake] = _Known()
                known.add(_newest_rows(table))
            elif new := files - known.files:
                known.add(_newest_rows(table, new))
            known.files |= files
            asked = known.entries if assets is None else known.entries.keys() & assets
            return {asset: dict(known.entries[asset]) for asset in asked}

    def remembered(self, asset: str) -> dict[str, Entry]:
        """The entries of ``asset`` as this process last read or wrote them: to look again is a question to a bucket."""
        with _LOCK:
            known = _KNOWN.get(self._lake)
            if known is not None:
                return dict(known.entries.get(asset, {}))
        return self.newest([asset]).get(asset, {})

    def totals(self) -> dict[str, dict[str, Total]]:
        """Sums over everything that was noted: asset -> partition -> total."""
        table = self._lake.find(LEDGER)
        result: dict[str, dict[str, Total]] = {}
        if table is None:
            return result
        missed = "missed" if "missed" in {field.name for field in table.schema().fields} else "0"
        with engine.session() as connection, self._reading():
            source = register(connection, "entries", table)
            rows = connection.execute(
                f"SELECT asset, partition, sum(inserted + updated + deleted), sum({missed}) FROM {source} GROUP BY ALL"
            ).fetchall()
        for asset, partition, versions, missing in rows:
            result.setdefault(asset, {})[partition] = Total(int(versions), int(missing or 0))
        return result

    def forget(self, asset: str, run_id: str) -> None:
        """Note that no partition of ``asset`` has rows: its table was lost, and may be made anew for some days only."""
        now = datetime.now(UTC)
        known = self.newest([asset]).get(asset, {}).values()
        self.append(Entry(asset, entry.partition, "", 0, now, run_id) for entry in known if entry.state)

    def fence(self, name: str) -> int:
        """The number that the newest commit behind the fence of this ``name`` left; 0 if there was none."""
        with self._lake.moving(LEDGER) as table:
            return (mark(table, name) or 0) if table is not None else 0

    def append(self, entries: Iterable[Entry], behind: tuple[str, int] | None = None) -> None:
        """Append entries in one commit; does nothing for none.

        ``behind``: a fence, and the number that was its newest when the entries were made. Raises LostRace if another
        has committed behind it since: then make them again.
        """
        rows = [{_COLUMN_OF[name]: value for name, value in vars(entry).items()} for entry in entries]
        if not rows:
            return
        with self._lake.moving(LEDGER) as found:
            table = self._open(found)
            sequence, before = table.version() + 1, _files(table)
            rows = [{**row, "sequence": sequence} for row in rows]
            if behind is not None and (mark(table, behind[0]) or 0) != behind[1]:
                raise LostRace(f"Another has committed behind the fence {behind[0]}.")
            self._write(table, pa.Table.from_pylist(rows, schema=_SCHEMA), behind)
            with _LOCK:
                if (known := _KNOWN.get(self._lake)) is not None:
                    known.add(rows)
                    if table.version() == sequence:  # else the new files are others' too, and are still to be read
                        known.files |= _files(table) - before
            tidy(table)

    def _write(self, table: DeltaTable, data: pa.Table, behind: tuple[str, int] | None) -> None:
        marks = CommitProperties(app_transactions=[Transaction(behind[0], behind[1] + 1)]) if behind else None
        try:
            write_deltalake(table, data, mode="append", commit_properties=marks)
        except (OSError, DeltaError) as error:
            if behind is not None and isinstance(error, CommitFailedError):
                raise LostRace(str(error)) from error
            if (now := self._lake.find(LEDGER)) is None or now.metadata().id != table.metadata().id:
                raise PlatformError(
                    f"The ledger at {self._lake.location(LEDGER)} was removed while a refresh was under way. No data "
                    "is lost with it: refresh again, and what it knew is found out by comparing."
                ) from error
            raise unwritable(table, error) from error

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, DeltaError, pa.ArrowException, duckdb.Error) as error:
            raise PlatformError(
                f"The ledger at {self._lake.location(LEDGER)} has lost some of its files: {one_line(error)}. Remove "
                "the rest of that folder and refresh: what the ledger knew is found out by comparing."
            ) from error

    def _open(self, found: DeltaTable | None) -> DeltaTable:
        return self._lake.open_plain(LEDGER, _SCHEMA, _DESCRIPTION, found)


def _files(table: DeltaTable) -> set[str]:
    """The files that the table is made of, as its log names them."""
    return {str(path) for path in listed(table).column("path").to_pylist()}


def _newest_rows(table: DeltaTable, files: Set[str] | None = None) -> list[dict[str, Any]]:
    with engine.session() as connection:
        source = register(connection, "entries", table, named=files)
        rows: list[dict[str, Any]] = (
            connection.execute(
                f"SELECT * FROM {source} QUALIFY row_number() OVER "
                f"(PARTITION BY asset, partition ORDER BY sequence DESC, {source}.recorded_at DESC) = 1"
            )
            .to_arrow_table()
            .to_pylist()
        )
        return rows
