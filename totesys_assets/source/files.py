"""Files as a source: what people drop for a table, CSV or JSON, is its rows.

Belongs here: which files there are, reading their text, and which of several rows with one key is meant. Does not
belong here: typing and comparing rows (copied.py), and what becomes of a file that cannot be read (dropped.py).

All files of a table together are its rows. A row that stands in several files counts once. If two files differ in a
row, the file whose name sorts later is believed. If one file differs from itself, the row is a dead letter.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyarrow as pa

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.counting import counted
from totesys_assets.settings import Settings
from totesys_assets.source.copied import BROKEN, FILE, NOTES, ORIGIN, CopiedSnapshot
from totesys_assets.source.dropped import Dropped, copies_of, instant_of, keep_copies, read_dropped
from totesys_assets.source.file_store import File, FileStore, Unreadable
from totesys_assets.source.rules import SEPARATOR, first_broken
from totesys_assets.source.seen import Seen
from totesys_assets.source.typed_text import rules, typed
from totesys_assets.sql_text import literal
from totesys_assets.variables import IGNORE

_LINE = "_line"
_ADDED = (*NOTES, _LINE)
_TEXT = pa.string()
# What spreadsheets of some countries write between columns, though they call the file CSV.
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs"}

# Of the rows with one key those of the last file, and of these one. The columns have numbers, as in copied.py.
_CHOSEN = """
SELECT * EXCLUDE ({keys}, line, row_text) REPLACE (CASE WHEN min(row_text) OVER same_key <> max(row_text) OVER same_key
    THEN {twice} ELSE broken END AS broken)
FROM (SELECT * FROM keyed WHERE {has_key} QUALIFY rank() OVER (PARTITION BY {keys} ORDER BY origin DESC) = 1)
WINDOW same_key AS (PARTITION BY {keys})
QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY line) = 1
"""
_WITHOUT_KEY = "SELECT origin || ', row ' || line, {why}, row_text FROM keyed WHERE NOT ({has_key})"


class Files:
    """The files below ``store``, of ``tables``; ``copies`` are the lake's."""

    name = "files"

    def __init__(
        self, store: FileStore, copies: FileStore, tables: Mapping[str, Table], *, ignores_new: bool = True
    ) -> None:
        self.tables = tables
        self._store, self._copies, self._ignores_new = store, copies, ignores_new
        self._seen = Seen()

    @contextmanager
    def snapshot(self) -> Iterator[CopiedSnapshot]:
        """The files as they are. Raises ConnectionFailed where they cannot be listed."""
        files = {name: self._store.files(name) for name in sorted(self.tables)}
        instant = instant_of([each for of_table in files.values() for each in of_table], time.time_ns())
        with _Snapshot(instant, self._store, self._copies, files, self._seen, self._ignores_new) as snapshot:
            yield snapshot


class _Snapshot(CopiedSnapshot):
    def __init__(
        self,
        instant: str,
        store: FileStore,
        copies: FileStore,
        files: Mapping[str, list[File]],
        seen: Seen,
        ignores_new: bool,
    ) -> None:
        super().__init__(Files.name, instant, ignores_new=ignores_new, seen=seen)
        self._store, self._copies, self._files = store, copies, files
        self._dropped: dict[str, Dropped[pa.Table]] = {}

    def texts(self, table: Table) -> pa.Table:
        """The rows of all files of a table, one for each key."""
        parse = partial(parsed, table)
        found = self._dropped[table.name] = read_dropped(self._store, self._copies, self._files[table.name], parse)
        for name, why in found.unreadable.items():
            self.refuse(table, name, f"{FILE}{SEPARATOR}cannot be read: {why}", json.dumps({ORIGIN: name}))
        names = [*table.by_name, *_ADDED]
        none = pa.table({name: pa.array([], _TEXT) for name in names} | {_LINE: pa.array([], pa.int64())})
        return self._chosen(table, pa.concat_tables([none, *found.read.values()], promote_options="default"))

    def keep(self, table: Table) -> None:
        """Copy the files that were read, for the time when one of them cannot be."""
        if table.name in self._dropped:
            keep_copies(self._copies, table.name, self._dropped[table.name])

    def _chosen(self, table: Table, rows: pa.Table) -> pa.Table:
        """One row for each key, and the rows without one noted as dead letters."""
        names = [name for name in rows.column_names if name not in _ADDED]
        text = {name: f"c{number}" for number, name in enumerate(names)}
        numbered = rows.select([*names, ORIGIN, BROKEN, _LINE]).rename_columns(
            [*text.values(), "origin", "broken", "line"]
        )
        keys = {f"k{number}": table.by_name[name] for number, name in enumerate(table.primary_key)}
        typed_keys = ", ".join(f"{typed(column, text[column.name])} AS {key}" for key, column in keys.items())
        raw = ", ".join(f"{literal(name)}, {each}" for name, each in text.items())
        why = [
            (column, f"{text[column.name]} IS NULL", "is missing, and rows are known by it") for column in keys.values()
        ]
        why += [rule for column in keys.values() for rule in rules(column, text[column.name])]
        parts = {
            "keys": ", ".join(keys),
            "has_key": " AND ".join(f"{key} IS NOT NULL" for key in keys),
            "twice": literal(f"{FILE}{SEPARATOR}has several rows with this key, and other values"),
            "why": f"coalesce({first_broken(why)}, {literal(f'{FILE}{SEPARATOR}has no key')})",
        }
        self.connection.register("file_rows", numbered)
        try:
            self.connection.execute(
                f"CREATE OR REPLACE TEMP TABLE keyed AS SELECT *, {typed_keys}, "
                f"CAST(json_object({raw}) AS VARCHAR) AS row_text FROM file_rows"
            )
            for name, reason, row in self.connection.execute(_WITHOUT_KEY.format(**parts)).fetchall():
                self.refuse(table, name, reason, row)
            chosen: pa.Table = self.connection.execute(_CHOSEN.format(**parts)).to_arrow_table()
        finally:
            self.connection.unregister("file_rows")
            self.connection.execute("DROP TABLE IF EXISTS keyed")
        return chosen.rename_columns([*names, ORIGIN, BROKEN])


def parsed(table: Table, name: str, content: bytes) -> pa.Table:
    """The rows of a file as text, with where they stand. Raises Unreadable for a file that is not as it should be."""
    kind = name.rpartition(".")[2].lower()
    read = {"csv": _csv, "json": _json, "jsonl": _json, "ndjson": _json}.get(kind)
    if read is None:
        raise Unreadable("its name ends with none of .csv, .json, .jsonl and .ndjson")
    try:
        columns, numbered = read(content.decode("utf-8-sig"))
        rows = [*numbered.values()]
        if odd := [each for each in columns if each in _ADDED or columns.count(each) > 1]:
            raise Unreadable(f'it has a column "{odd[0]}" {"twice" if columns.count(odd[0]) > 1 else "of this name"}')
        missing = [each.name for each in table.columns if each.name not in columns and not each.nullable]
        if kind == "csv" and missing:
            raise Unreadable(f'it has no column "{missing[0]}"; its first line is to name {", ".join(table.by_name)}')
        texts = {column: pa.array([_text(row.get(column)) for row in rows], _TEXT) for column in columns}
    except (ValueError, RecursionError, csv.Error, pa.ArrowException) as error:
        raise Unreadable(f"it is no {'CSV' if kind == 'csv' else 'JSON'} in UTF-8 ({error})") from error
    broken = [
        next((f"{column}{SEPARATOR}is a list or an object" for column in row if _is_nested(row[column])), None)
        for row in rows
    ]
    return pa.table(
        texts
        | {
            ORIGIN: pa.array([name] * len(rows), _TEXT),
            BROKEN: pa.array(broken, _TEXT),
            _LINE: pa.array(numbered, pa.int64()),
        }
    )


def _csv(text: str) -> tuple[list[str], dict[int, dict[str, Any]]]:
    """The names of columns, and the rows by their numbers as a spreadsheet counts them.

    A row that is empty throughout is none: spreadsheets leave such rows behind.
    """
    records = enumerate(csv.reader(io.StringIO(text, newline=""), strict=True), 1)
    rows = {number: row for number, row in records if any(row)}
    if not rows:
        raise Unreadable("it is empty")
    header = rows.pop(min(rows))
    if len(header) == 1 and (other := next((sign for sign in _OTHER_SEPARATORS if sign in header[0]), None)):
        raise Unreadable(f"its columns are separated by {_OTHER_SEPARATORS[other]}; save it with commas between them")
    for number, row in rows.items():
        if len(row) != len(header):
            raise Unreadable(f"row {number} has {counted(len(row), 'value')} for {counted(len(header), 'column')}")
    return header, {
        number: dict(zip(header, (each or None for each in row), strict=True)) for number, row in rows.items()
    }


def _json(text: str) -> tuple[list[str], dict[int, dict[str, Any]]]:
    """The names of columns, and the objects of an array, or one on each line, by their place.

    Numbers stay as they are written.
    """
    decode = json.JSONDecoder(object_pairs_hook=_object, parse_float=str, parse_int=str, parse_constant=str).decode
    if not text.strip():
        raise Unreadable("it is empty")
    rows = (
        decode(text) if text.lstrip().startswith("[") else [decode(each) for each in text.split("\n") if each.strip()]
    )
    numbered = dict(enumerate(rows, 1))
    for number, row in numbered.items():
        if not isinstance(row, dict):
            raise Unreadable(f"row {number} is no object with the names of columns")
    return list(dict.fromkeys(name for row in rows for name in row)), numbered


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has one name twice")
    return found


def _is_nested(value: object) -> bool:
    return isinstance(value, (list, dict))


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


def open_source(settings: Settings, tables: Mapping[str, Table]) -> Files:
    """The files of the place that the environment names."""
    store = FileStore(settings.files_uri, "FILES_URI")
    return Files(store, copies_of(settings.lake_uri), tables, ignores_new=settings.new_columns == IGNORE)
