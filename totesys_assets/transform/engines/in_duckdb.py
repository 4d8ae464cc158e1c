"""DuckDB as the engine: in this process, and delta-rs writes the batches that it gives."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import pyarrow as pa

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import MONTH, Table
from totesys_assets.days import Days, chunks
from totesys_assets.engine import CHUNK_ROWS
from totesys_assets.lake.commit import append, replace
from totesys_assets.lake.conform import conform
from totesys_assets.lake.marks import mark
from totesys_assets.stages import BUILD, timed
from totesys_assets.transform.checks import checked
from totesys_assets.transform.engines.interface import WRITER, Work
from totesys_assets.transform.schemas import create_schemas, select_of
from totesys_assets.transform.sets import Sets, gather, worth_keeping
from totesys_assets.variables import DUCKDB

# Noted with the commits to a star table that is one set: the digest of its rows.
_ROWS = "rows"


class InDuckDb:
    """The default. It also makes the tables that are one set, whichever engine makes the others."""

    name = DUCKDB

    def append(self, work: Work, since: Mapping[str, int], marks: Mapping[str, int]) -> None:
        """Rows of the versions recorded ``since``, as a stream."""
        create_schemas(work.connection, work.catalogue, work.query, work.sources, None, since=since)
        append(work.target, _rows(work), work.schema, WRITER, marks)

    def replace(self, work: Work, days: Days | None, rows: Mapping[str, int], marks: Mapping[str, int]) -> None:
        """Rows of ``days``, as a stream; of a SELECT that is not row by row, chunk by chunk."""
        chunked: Iterable[Days | None] = [days]
        if days is not None and not work.query.is_row_by_row:
            chunked = chunks(days, rows, CHUNK_ROWS)
        batches = chain.from_iterable(_chunk(work, chunk) for chunk in chunked)
        replace(work.target, batches, work.schema, WRITER, _predicate(work.table, days), marks)


def remake(work: Work, kept: Sets | None, *, keep: bool) -> tuple[str, Sets | None]:
    """Make all of a table that is one set anew. ``keep`` what is there if equal, and believe in the ``kept`` sets.

    Most of what changes in ToteSys leaves the calendar as it is, which is made of it. Returns a digest of the rows, and
    the sets if they are to be kept. Raises as an engine does.
    """
    select, sets = select_of(work.table), None
    if work.query.sets:
        select, known = work.query.over_sets, kept if keep else None
        sets = gather(work.connection, work.catalogue, work.query, work.sources, known)
    else:
        create_schemas(work.connection, work.catalogue, work.query, work.sources, None)
    work.connection.execute(f"CREATE OR REPLACE TEMP TABLE remade AS {select}")
    digest = "SELECT count(*), sum(hash(remade)), bit_xor(hash(remade)) FROM remade"
    found = "\n".join(map(str, work.connection.execute(digest).fetchall()[0]))
    found = hashlib.sha256(found.encode()).hexdigest()[:32]
    number = int(found[:15], 16)
    if not keep or mark(work.target, _ROWS) != number:
        rows = timed(BUILD, engine.batches(work.connection.execute("FROM remade")))
        remade = conform(checked(work.table, rows), work.schema, work.table.day_column)
        replace(work.target, remade, work.schema, WRITER, None, {_ROWS: number})
    return found, sets if sets is not None and worth_keeping(sets, kept, work.sources) else None


def _chunk(work: Work, days: Days | None) -> Iterator[pa.RecordBatch]:
    create_schemas(work.connection, work.catalogue, work.query, work.sources, days)
    yield from _rows(work, days)


def _rows(work: Work, days: Days | None = None) -> Iterator[pa.RecordBatch]:
    rows = timed(BUILD, engine.batches(work.connection.execute(select_of(work.table))))
    yield from conform(checked(work.table, rows, days), work.schema, work.table.day_column)


def _predicate(table: Table, days: Days | None) -> str | None:
    if days is None:
        return None
    # The month says the same twice over; it lets delta-rs leave other folders alone.
    return " OR ".join(
        f"({table.day_column} >= '{each.first}' AND {table.day_column} <= '{each.last}' "
        f"AND {MONTH} >= '{each.months[0]}' AND {MONTH} <= '{each.months[-1]}')"
        for each in days.ranges
    )
