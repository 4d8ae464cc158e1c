"""Whole tables as streams: CSV by COPY, Arrow from a server-side cursor. No more than one piece is in memory.

Belongs here: what a piece is, and the end of a download. Does not belong here: which rows (rows.py).
"""

from __future__ import annotations

import io
import itertools
import logging
import os
import socket
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Timer
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import psycopg
import pyarrow as pa
from anyio.to_thread import run_sync
from fastapi.concurrency import iterate_in_threadpool
from fastapi.responses import StreamingResponse
from psycopg import sql

from totesys_assets.api.rows import Wanted
from totesys_assets.errors import PlatformError
from totesys_assets.insights.reading import Reader

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from totesys_assets.warehouse.notes import Connection

# One row at a time through Starlette's threads takes ten times as long.
PIECE_BYTES = 64 * 1024
BATCH_ROWS = 5000
# A client that takes nothing must not hold a snapshot for ever: vacuum waits for it.
DOWNLOAD_SECONDS = 600.0
# The server's own, which is printed.
_LOG = logging.getLogger("uvicorn.error")
# What the server adds to each of the lines above it, with nothing to learn from it.
CUT = "ASGI callable returned without completing response."
_LIMITS = "SELECT set_config('statement_timeout', %s, true)"
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
    with _download(reader) as connection:
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
    with _download(reader) as connection:
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


class Download(StreamingResponse):
    """The answer with ``begun`` and the ``pieces`` after it. However it ends, the generator of the pieces is closed.

    Starlette leaves a generator to be collected some day when a client goes away early, with its session.
    """

    def __init__(
        self, begun: bytes, pieces: Generator[bytes, None, None], media_type: str, headers: Mapping[str, str]
    ) -> None:
        super().__init__(itertools.chain([begun], pieces), media_type=media_type, headers=headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces, for at most DOWNLOAD_SECONDS: a client that reads nothing is not waited for any longer.

        What ends it early is a line of the log, and the client is cut: its answer has begun as one that is well.
        """
        if scope["method"] == "HEAD":  # whoever asks for the headers alone does not have all rows read
            self.body_iterator = iterate_in_threadpool(())
        try:
            with anyio.move_on_after(DOWNLOAD_SECONDS) as limit:
                await super().__call__(scope, receive, send)
            if limit.cancelled_caught:
                _LOG.error("A download of %s was cut: it took %.0f s.", scope["path"], DOWNLOAD_SECONDS)
        except PlatformError as error:
            _LOG.error("A download of %s was cut. %s", scope["path"], error)
        finally:
            with anyio.CancelScope(shield=True):
                await run_sync(self._pieces.close)


@contextmanager
def _download(reader: Reader) -> Iterator[Connection]:
    """A session that is cut after DOWNLOAD_SECONDS, whatever its client does."""
    with reader.session() as connection:
        connection.execute(_LIMITS, [f"{DOWNLOAD_SECONDS:.0f}s"])
        end = Timer(DOWNLOAD_SECONDS, _cut, [connection])
        end.daemon = True
        end.start()
        try:
            yield connection
        finally:
            end.cancel()


def _cut(connection: Connection) -> None:
    # PostgreSQL gives up no statement while it waits for a client that does not read. It sees that the client is gone.
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


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
