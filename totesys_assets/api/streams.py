"""Whole tables as streams: CSV by COPY, Arrow from a server-side cursor. No more than one piece is in memory.

Belongs here: what a piece is. Does not belong here: which rows (rows.py).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
from psycopg import sql

from totesys_assets.api.rows import Wanted
from totesys_assets.insights.reading import Reader

if TYPE_CHECKING:
    import psycopg

    from totesys_assets.warehouse.notes import Connection

# One row at a time through Starlette's threads takes ten times as long.
PIECE_BYTES = 64 * 1024
BATCH_ROWS = 5000
# A download may take this long, and a client that takes nothing for a minute is left.
_LIMITS = "SELECT set_config('statement_timeout', '10min', true), set_config('{}', '1min', true)".format(
    "idle_in_transaction_session_timeout"
)
_TYPES: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
}


class Format(NamedTuple):
    """A media type, and what makes pieces of the rows that are wanted."""

    media_type: str
    pieces: Any


def csv(reader: Reader, wanted: Wanted, limit: int | None) -> Iterator[bytes]:
    """The rows as PostgreSQL's COPY writes them, with a line of names, in pieces of at least 64 KB but the last."""
    statement, values = wanted.select(limit=limit)
    with reader.session() as connection:
        _begin(connection)
        copy = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER)").format(statement)
        with connection.cursor() as cursor, cursor.copy(copy, values) as blocks:
            piece = bytearray()
            for block in blocks:
                piece += block
                if len(piece) >= PIECE_BYTES:
                    yield bytes(piece)
                    piece.clear()
        yield bytes(piece)


def arrow(reader: Reader, wanted: Wanted, limit: int | None) -> Iterator[bytes]:
    """The rows as a stream of Arrow's IPC format, in batches. A number without a scale is a text, as it is in JSON."""
    with reader.session() as connection:
        _begin(connection)
        with connection.cursor("rows") as cursor:
            cursor.execute(*wanted.select(limit=limit))
            schema = pa.schema([(column.name, _type(cursor, column)) for column in cursor.description or ()])
            sink = io.BytesIO()
            with pa.ipc.new_stream(sink, schema) as writer:
                while rows := cursor.fetchmany(BATCH_ROWS):
                    writer.write_batch(_batch(rows, schema))
                    yield sink.getvalue()
                    sink.seek(0)
                    sink.truncate()
        yield sink.getvalue()


FORMATS = {
    "csv": Format("text/csv; charset=utf-8", csv),
    "arrow": Format("application/vnd.apache.arrow.stream", arrow),
}


def _begin(connection: Connection) -> None:
    connection.execute(_LIMITS)


def _type(cursor: psycopg.ServerCursor[Any], column: psycopg.Column) -> pa.DataType:
    known = cursor.adapters.types.get(column.type_code)
    name = known.name if known else ""
    if name == "numeric" and column.precision is not None:
        return pa.decimal128(column.precision, column.scale or 0)
    return _TYPES.get(name, pa.string())


def _batch(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for values, field in zip(zip(*rows, strict=True), schema, strict=True):
        texts = pa.types.is_string(field.type)
        shown = [each if each is None else str(each) for each in values] if texts else values
        arrays.append(pa.array(shown, field.type))
    return pa.record_batch(arrays, schema=schema)
