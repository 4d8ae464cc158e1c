"""Spark as the engine: a server writes Parquet files into the folder of the table, and the platform commits them.

Belongs here: what the server is asked for, and what must be true of what it wrote. Does not belong here: sessions
(spark_session.py), what SELECTs read there (spark_views.py), and how it is said there (spark_sql.py).

A server may retry a task, see another folder than the platform does, or write other types. So nothing is believed: the
rows are counted by a query of their own, and the footers of the files must tell of as many, in the types of the lake,
with values where they must be. The commit is the platform's, with its fence, its marks and its statistics.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow as pa
from deltalake.transaction import AddAction

from totesys_assets.catalogue.catalogue import MONTH
from totesys_assets.counting import counted
from totesys_assets.days import Days
from totesys_assets.errors import PlatformError
from totesys_assets.lake.commit import commit
from totesys_assets.lake.files import Files, place_of
from totesys_assets.lake.storage import file_system, storage_of
from totesys_assets.lake.written import Written, found, listed_in
from totesys_assets.sql_text import quoted
from totesys_assets.stages import BUILD, stage
from totesys_assets.transform.checks import other_days, without_value
from totesys_assets.transform.engines.interface import WRITER, Work
from totesys_assets.transform.engines.spark_session import connected, shown
from totesys_assets.transform.engines.spark_sql import translated, typed
from totesys_assets.transform.engines.spark_views import SparkViews, elsewhere
from totesys_assets.transform.schemas import create_schemas, select_of
from totesys_assets.variables import SPARK

if TYPE_CHECKING:
    from pyspark.sql.connect.session import SparkSession

# Views of what is made, and of what the table holds in the files that are to be replaced.
_MADE, _HELD = "made", "held"
# What Spark calls the folder of rows without a month.
_NO_MONTH = "__HIVE_DEFAULT_PARTITION__"


class InSpark:
    """A Spark Connect server at ``remote``, an address as SPARK_REMOTE gives it."""

    name = SPARK

    def __init__(self, remote: str) -> None:
        self._remote = remote

    def __repr__(self) -> str:
        return f"InSpark({shown(self._remote)})"

    def append(self, work: Work, since: Mapping[str, int], marks: Mapping[str, int]) -> None:
        """Rows of the versions recorded ``since``, in files of their own."""
        with self._connected(work) as session:
            create_schemas(self._views(session), work.catalogue, work.query, work.sources, None, since=since)
            written = self._written(session, work, None, None)
            commit(written, WRITER, marks)

    def replace(self, work: Work, days: Days | None, rows: Mapping[str, int], marks: Mapping[str, int]) -> None:  # noqa: ARG002 - the server itself sees to its memory
        """Rows of ``days``, and in the files that had some, all others as they are: these files are replaced."""
        held = Files(work.target, days, work.table.day_column)
        with self._connected(work) as session:
            create_schemas(self._views(session), work.catalogue, work.query, work.sources, days)
            written = self._written(session, work, days, held)
            commit(written, WRITER, marks, instead_of=held.paths)

    def _views(self, session: SparkSession) -> SparkViews:
        return SparkViews(session, shown(self._remote))

    @contextmanager
    def _connected(self, work: Work) -> Iterator[SparkSession]:
        with connected(self._remote, f'Building "{work.table.name}"') as session:
            yield session

    def _written(self, session: SparkSession, work: Work, days: Days | None, held: Files | None) -> Written:
        """The files of what is to be committed. If they cannot be made, none is left.

        Once a commit was tried with them, they stay, whatever it says: its answer may have been lost.
        """
        folder = f"spark-{uuid4()}"
        try:
            with stage(BUILD):
                expected = self._make(session, work, days, held, folder)
                return self._found(work, folder, expected)
        except BaseException:
            _remove(work, folder)
            raise

    def _make(self, session: SparkSession, work: Work, days: Days | None, held: Files | None, folder: str) -> int:
        """Let the server write the rows into ``folder``. Returns how many there are."""
        made = session.sql(typed(select_of(work.table), work.schema))
        made.createOrReplaceTempView(_MADE)
        day = quoted(str(work.table.day_column))
        on_days = "true" if days is None else _within(day, days)
        counts = f"SELECT count(*) AS n, min(CASE WHEN NOT ({on_days}) THEN {day} END) AS other FROM {_MADE}"
        (found_rows, other), *_ = session.sql(translated(counts)).collect()
        if work.table.is_mart and other is not None:
            raise other_days(work.table, other)
        columns = ", ".join(quoted(name) for name in work.schema.names if name != MONTH)
        rows = f"SELECT {columns} FROM {_MADE}"
        if held is not None and days is not None and held.paths:
            self._views(session).read_files(_HELD, work.target, held)
            kept = f"SELECT {columns} FROM {_HELD} WHERE NOT ({on_days})"
            (count,), *_ = session.sql(translated(f"SELECT count(*) AS n FROM ({kept})")).collect()
            rows, found_rows = f"{rows} UNION ALL {kept}", found_rows + count
        with_month = f"SELECT *, strftime({day}, '%Y-%m') AS {MONTH} FROM ({rows})"
        if found_rows:
            # One file a month, and not one of each task: a million rows of a fact are 25 MB.
            frame = session.sql(translated(with_month)).repartition(MONTH)
            frame.write.mode("append").partitionBy(MONTH).parquet(f"{place_of(work.target)}/{folder}")
        return int(found_rows)

    def _found(self, work: Work, folder: str, expected: int) -> Written:
        """The files that the server wrote, if they are what was asked for. Raises PlatformError where they are not."""
        files = listed_in(work.target, folder)
        sizes = {path: size for path, size in files.items() if _month(folder, path) is not None}
        values = [str(_month(folder, path)) for path in sizes]
        if _NO_MONTH in values:
            raise without_value(work.table, str(work.table.day_column))
        written = found(work.target, sizes, [{MONTH: value} for value in values])
        if written.rows != expected:
            raise elsewhere(shown(self._remote), work.target, f"was to write {counted(expected, 'row')}", written.rows)
        if written.actions:
            _require_types(work, written.actions[0])
        for column in (each.name for each in work.table.lake_columns if not each.nullable):
            if any(_nulls(work, each, column) for each in written.actions):
                raise without_value(work.table, column)
        return written


def _within(day: str, days: Days) -> str:
    return " OR ".join(f"{day} BETWEEN DATE '{each.first}' AND DATE '{each.last}'" for each in days.ranges)


def _month(folder: str, path: str) -> str | None:
    """The month of a file that the server wrote. None for one of a task that was not completed."""
    matched = re.fullmatch(rf"{folder}/{MONTH}=([^/]+)/[^/_.][^/]*", path)
    return matched[1] if matched else None


def _nulls(work: Work, action: AddAction, column: str) -> int:
    """How many rows of a file have no value in ``column``. Spark leaves out all statistics of very long texts."""
    nulls = json.loads(action.stats)["nullCount"].get(column)
    if nulls is None:
        from pyarrow.parquet import ParquetFile

        with file_system(work.target, {action.path: action.size}).open_input_file(action.path) as file:
            batches = ParquetFile(file).iter_batches(columns=[column])
            nulls = sum(batch.column(0).null_count for batch in batches)
    return int(nulls)


def _require_types(work: Work, action: AddAction) -> None:
    from pyarrow.parquet import read_metadata

    files = file_system(work.target, {action.path: action.size})
    written = read_metadata(action.path, filesystem=files).schema.to_arrow_schema()
    types = {each.name: each.type for each in written}
    wanted = {each.name: each.type for each in work.schema if each.name != MONTH}
    for name, type_ in wanted.items():
        if types.get(name) != type_:
            raise PlatformError(
                f'Building "{work.table.name}" failed: the Spark server wrote "{name}" as {types.get(name)}, and the '
                f"lake has {type_}. Nothing was committed; use a newer server."
            )


def _remove(work: Work, folder: str) -> None:
    """Remove what the server wrote, as far as it can be reached. The rest no commit names."""
    with suppress(OSError, pa.ArrowException):
        storage_of(work.target).remove_folder(folder)
