"""The files of a table: which of them may hold the rows that are asked for, and how DuckDB reads them.

Belongs here: the months of their folders, their statistics, and how far ahead they are read. Does not belong here: what
is asked of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from deltalake import DeltaTable

from totesys_assets.catalogue.catalogue import MONTH, RECORDED_AT
from totesys_assets.days import Days
from totesys_assets.engine import BATCH_ROWS
from totesys_assets.lake.known import known
from totesys_assets.sql_text import literal, quoted

if TYPE_CHECKING:
    from pyarrow.dataset import FileSystemDataset

# What a reader must know of our tables. Of a table that somebody gave other features, delta-rs judges.
_FEATURES = {"timestampNtz"}
_WILD = set("*?[")  # in a path, DuckDB takes them for a pattern
# Statistics of moments are cut off after the millisecond.
_CUT_OFF = timedelta(milliseconds=1)
_TYPES = {
    pa.bool_(): "BOOLEAN",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.date32(): "DATE",
    pa.timestamp("us"): "TIMESTAMP",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
}


def listed(table: DeltaTable) -> pa.Table:
    """The files of a table, with what its log knows of each: ``path``, ``num_records``, ``max.<column>`` and so on."""
    state = known(table)
    if state.files is None:
        # Not pa.table(), which asks whether it is given something of pandas, and imports that to know.
        state.files = pa.RecordBatchReader.from_stream(table.get_add_actions(flatten=True)).read_all()
    return state.files


class Files:
    """The files of ``table`` that may hold rows of ``days``, by ``column``, recorded from ``since`` on.

    ``days`` None: of all. ``column``: a date or a timestamp; None: only the months tell. ``since``: microseconds since
    1970. ``within``: a column, and between which values it is, both included. ``named``: only those that the
    log of the table calls so, with their folders: Spark gives the files of several months one name. Other rows may be
    in them.
    """

    def __init__(
        self,
        table: DeltaTable,
        days: Days | None = None,
        column: str | None = None,
        since: int | None = None,
        within: tuple[str, Any, Any] | None = None,
        named: Set[str] | None = None,
    ) -> None:
        self._table = table
        self._schema = pa.schema(table.schema().to_arrow())  # type: ignore[arg-type]  # Arrow's C interface
        self._known = listed(table)
        self._wanted = [*self._choose(days, column, since, within, named)]

    def _choose(
        self,
        days: Days | None,
        column: str | None,
        since: int | None,
        within: tuple[str, Any, Any] | None,
        named: Set[str] | None,
    ) -> Iterator[int]:
        """Numbers of the files that may hold what is asked for. What nothing is known of, a file may hold."""
        paths, months, newest = (self._values(each) for each in ("path", f"partition.{MONTH}", f"max.{RECORDED_AT}"))
        ends, wanted = self._ends(column), self._ends(within[0] if within is not None else None)
        asked = set(days.months) if days is not None else set()
        earliest = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=since) - _CUT_OFF if since else None
        for number, path in enumerate(paths):
            if days is not None and not (_is_in(asked, months[number]) and _touches(days, ends[number])):
                continue
            if earliest is not None and newest[number] is not None and newest[number] <= earliest:
                continue
            if within is not None and not _overlap(within[1:], wanted[number]):
                continue
            if named is None or path in named:
                yield number

    def _ends(self, column: str | None) -> list[tuple[Any, Any]]:
        """The least and the greatest value of a column in each file."""
        return [*zip(self._values(f"min.{column}"), self._values(f"max.{column}"), strict=True)]

    def _values(self, name: str) -> list[Any]:
        if name not in self._known.column_names:
            return [None] * self._known.num_rows
        values: list[Any] = self._known.column(name).to_pylist()
        return values

    @property
    def rows(self) -> int:
        """How many rows they hold."""
        counts = self._values("num_records")
        return sum(counts[number] for number in self._wanted)

    @property
    def paths(self) -> list[str]:
        """As the log of the table names them."""
        paths = self._values("path")
        return [paths[number] for number in self._wanted]

    @property
    def uris(self) -> list[str]:
        """Where they are: whole URIs, in which nothing is encoded."""
        return [f"{place_of(self._table)}/{unquote(path)}" for path in self.paths]

    @property
    def select(self) -> str | None:
        """A query for their rows, all columns; None if DuckDB cannot read them by itself.

        It has no connection to buckets here. In a folder it reads them in half of the time that Arrow takes.
        """
        folder = folder_of(self._table)
        if folder is None or _WILD & set(folder) or not set(self._table.protocol().reader_features or ()) <= _FEATURES:
            return None
        columns = ", ".join(quoted(name) for name in self._schema.names)
        typed = ", ".join(f"CAST(NULL AS {_type(each.type)}) AS {quoted(each.name)}" for each in self._schema)
        listed = ", ".join(literal(f"{folder}/{unquote(path)}") for path in self.paths)
        by_month = f"true, hive_types = {{{literal(MONTH)}: VARCHAR}}" if MONTH in self._schema.names else "false"
        options = f"hive_partitioning = {by_month}"
        if not self._wanted:
            return f"SELECT {typed} WHERE false"
        if self._have_all_columns():
            return f"SELECT {columns} FROM read_parquet([{listed}], {options})"
        read = f"SELECT * FROM read_parquet([{listed}], union_by_name = true, {options})"
        return f"SELECT {columns} FROM (SELECT {typed} WHERE false UNION ALL BY NAME {read})"

    def _have_all_columns(self) -> bool:
        """False if a column may be missing in a file that is older than the column."""
        for name in self._schema.names:
            if name != MONTH:
                counts = self._values(f"null_count.{name}")
                if any(counts[number] is None for number in self._wanted):
                    return False
        return True

    def dataset(self) -> FileSystemDataset:
        """They as Arrow reads them, with little read-ahead.

        Arrow's default reads 64 batches of 131,072 rows ahead. That takes up to 450 MB, and more time, because the
        batches have left the processor's caches when they are used.
        """
        from pyarrow.dataset import FileSystemDataset, Scanner  # here: slow to import

        class FrugalDataset(FileSystemDataset):
            def scanner(self, **asked: Any) -> Scanner:  # type: ignore[override]  # asked for by DuckDB, by name
                """A scanner of the columns and rows that DuckDB needs; of several files at once, for their latency."""
                scan: Any = super().scanner
                scanner: Scanner = scan(**asked, batch_size=BATCH_ROWS, batch_readahead=2, fragment_readahead=4)
                return scanner

        names = {unquote(path) for path in self.paths}
        files: Any = self._table.to_pyarrow_dataset()
        wanted = [each for each in files.get_fragments() if unquote(each.path) in names]
        return FrugalDataset(wanted, files.schema, files.format, files.filesystem)


def _is_in(months: set[str], month: str | None) -> bool:
    return month is None or month in months


def _touches(days: Days, ends: tuple[date | None, date | None]) -> bool:
    first, last = (each.date() if isinstance(each, datetime) else each for each in ends)
    return first is None or last is None or any(each.first <= last and first <= each.last for each in days.ranges)


def _overlap(asked: tuple[Any, Any], ends: tuple[Any, Any]) -> bool:
    least, greatest = ends
    return least is None or greatest is None or (least <= asked[1] and asked[0] <= greatest)


def _type(arrow: pa.DataType) -> str:
    """DuckDB's name of a type."""
    if isinstance(arrow, pa.Decimal128Type):
        return f"DECIMAL({arrow.precision}, {arrow.scale})"
    return _TYPES[arrow]


def folder_of(table: DeltaTable) -> str | None:
    """The folder of a table; None if the table is in a bucket."""
    place = urlsplit(table.table_uri)
    return unquote(place.path).rstrip("/") if place.scheme == "file" else None


def place_of(table: DeltaTable) -> str:
    """The folder of a table as a URI in which nothing is encoded."""
    folder = folder_of(table)
    return table.table_uri.rstrip("/") if folder is None else f"file://{folder}"
