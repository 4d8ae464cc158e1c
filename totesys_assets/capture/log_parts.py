"""Parts of the lines of the log, by ranges of keys: so many lines in each that their comparison takes little memory.

Belongs here: where the lines are cut, and the DuckDB that compares them. Does not belong here: what is done with a part
(log_versions.py).

All lines of a row are in one part. So what becomes of it is found there, whatever is in the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.capture.log_piece import LSN
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.lake.files import Files
from totesys_assets.lake.read import register
from totesys_assets.sql_text import quoted

# Lines that are compared at once, with what is held of their rows.
PART_ROWS = 100_000
# Of the lines and versions of all parts, and of one part at work; what does not fit is spilled to disk.
_MEMORY = "128MB"
_LEAST, _GREATEST = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class Part:
    """Lines, by an SQL condition of their keys. ``ends``: between which keys, both included, if they are numbers."""

    condition: str
    ends: tuple[int, int] | None = None


ALL = Part("true")


@contextmanager
def room(journal: DeltaTable | None, least: int, end: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """A session for what the journal says from one position to another: of a DuckDB of its own where that is much.

    Of what the one takes that all sessions share, nothing is ever given back.
    """
    if journal is None or Files(journal, within=(LSN, least, end)).rows <= PART_ROWS:
        with engine.session() as connection:
            yield connection
        return
    connection = engine.connect()
    try:
        connection.execute(f"SET memory_limit = '{_MEMORY}'")
        yield connection
    finally:
        engine.close(connection)


def parts(connection: duckdb.DuckDBPyConnection, table: Table, emptied: DeltaTable | None) -> list[Part]:
    """Parts of the temporary table ``lines`` of ``connection``.

    ``emptied``: what is held of a table that a TRUNCATE emptied; each row of it has lines, too.
    """
    name = table.primary_key[0]
    key, keys = quoted(name), f"SELECT {quoted(name)} AS key FROM lines"
    if emptied is not None:
        keys += f" UNION ALL SELECT {key} FROM {register(connection, 'held', emptied)}"
    count = -(-connection.execute(f"SELECT count(*) FROM ({keys})").fetchall()[0][0] // PART_ROWS)
    if count <= 1:
        return [ALL]
    if not pa.types.is_integer(table.by_name[name].arrow):
        return [Part(f"hash({key}) % {count} = {number}") for number in range(count)]
    places = ", ".join(str(number / count) for number in range(1, count))
    found = connection.execute(f"SELECT quantile_disc(key, [{places}]) FROM ({keys})").fetchall()[0][0]
    return [_between(key, *edges) for edges in pairwise([None, *sorted(set(found)), None])]


def _between(key: str, least: int | None, end: int | None) -> Part:
    """The lines with keys from ``least`` on, before ``end``; None: there is no such key."""
    conditions = [f"{key} >= {least}"] * (least is not None) + [f"{key} < {end}"] * (end is not None)
    ends = (least if least is not None else _LEAST, end - 1 if end is not None else _GREATEST)
    return Part(" AND ".join(conditions) or "true", ends)
