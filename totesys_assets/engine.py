"""DuckDB, the engine that moves and compares rows, and its way into PostgreSQL.

Belongs here: opening DuckDB, loading its postgres extension from the installed wheel, attaching a database without
letting a password into any message. Does not belong here: what is read or written.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache
from itertools import count
from pathlib import Path
from threading import Lock
from weakref import WeakKeyDictionary

import duckdb
import psycopg.conninfo
import pyarrow as pa

from totesys_assets import spill
from totesys_assets.batches import VECTOR_ROWS, sized
from totesys_assets.errors import PlatformError
from totesys_assets.libpq import conninfo, unreachable
from totesys_assets.sql_text import literal, quoted

# Rows per Arrow batch: large enough to be fast, small enough that a dozen of them under way are 50 MB.
BATCH_ROWS = 30_000
# Rows of a chunk: what is compared, or made by a SELECT, at once.
CHUNK_ROWS = 500_000
# Of the buffers of a DuckDB that a database is attached to, of which a run has two or three, and of the one that all
# sessions of a process share; what does not fit is spilled to disk.
_MEMORY_LIMIT, _SHARED_MEMORY_LIMIT = "256MB", "512MB"
# One thread: while others work on a query, the one that waits for its result keeps a processor busy with asking. What
# runs side by side are steps (dagster_internals/executor.py), and beside each of them delta-rs and the servers.
_THREADS = 1
# DuckDB asks a new session some things before there is a transaction to set anything in. Where the login has so short a
# time limit that this fails, the start of the session lifts it; a pooler would not let it.
_TOOK_TOO_LONG, _UNLIMITED = "statement timeout", "-c statement_timeout=0"
# The connections of this process, each with the run that it works for.
_OPEN: WeakKeyDictionary[duckdb.DuckDBPyConnection, str | None] = WeakKeyDictionary()
_RUN: ContextVar[str | None] = ContextVar("run", default=None)
# Sessions with a database, until close() is done with them. A Ctrl-C may keep close() from being called, and DuckDB
# aborts the whole process when it destroys an open session whose server is gone.
_ATTACHED: set[duckdb.DuckDBPyConnection] = set()
_LOCK = Lock()
_SESSION_NUMBERS = count()
# In a forked process, the DuckDB of its parent: kept, so that it is never freed.
_PARENTS_DUCKDB: list[duckdb.DuckDBPyConnection] = []
# Options that the secret carries; everything else of a URL goes into the ATTACH string.
_SECRET_KEYS = ("host", "port", "user", "password", "dbname")


def connect() -> duckdb.DuckDBPyConnection:
    """A new in-memory DuckDB, for ``attach``; it never reaches for the network by itself, and its session is in UTC."""
    connection = _new(_MEMORY_LIMIT)
    _begin(connection)
    return connection


def another(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Another connection of the same DuckDB: with the databases that are attached to it, and nothing else of it."""
    made = connection.cursor()
    _ATTACHED.add(made)
    _begin(made)
    return made


@contextmanager
def session() -> Iterator[duckdb.DuckDBPyConnection]:
    """A session of the process's DuckDB, else like ``connect``, with a database of its own that ends with the block.

    A DuckDB of its own would take 10 ms for a list of all its functions: as long as a small table.
    """
    name = f"session_{next(_SESSION_NUMBERS)}"
    try:
        connection = _attached_to_shared(name)
    except duckdb.FatalException:  # an error of its own has made it unusable
        _shared.cache_clear()
        connection = _attached_to_shared(name)
    try:
        connection.execute(f"USE {name}")
        _begin(connection)
        yield connection
    finally:
        close(connection)
        # By another connection: what interrupts the sessions of a run may come once more, and would leave it attached.
        with suppress(duckdb.Error), _shared().cursor() as other:
            other.execute(f"DETACH {name}")


def _attached_to_shared(name: str) -> duckdb.DuckDBPyConnection:
    connection = _shared().cursor()
    connection.execute(f"ATTACH ':memory:' AS {name}")
    return connection


@lru_cache(maxsize=1)
def _shared() -> duckdb.DuckDBPyConnection:
    return _new(_SHARED_MEMORY_LIMIT)


def _leave_to_parent() -> None:
    """Begin with another DuckDB in a forked process, and never free its parent's: a thread may have been at work."""
    if _shared.cache_info().currsize:
        _PARENTS_DUCKDB.append(_shared())
        _shared.cache_clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def _new(memory_limit: str) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            # The one extension that is loaded comes in a wheel that is pinned by its hash, as DuckDB itself does.
            # Checking its signature too would take 0.1 s for each session.
            "allow_unsigned_extensions": "true",
            "memory_limit": memory_limit,
            # It reads local files only, which the system keeps for it.
            "enable_external_file_cache": "false",
            "temp_directory": spill.folder(),
            "preserve_insertion_order": "false",
            "threads": _THREADS,
        }
    )


def _begin(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("SET TimeZone = 'UTC'")
    claim(connection)


def work_for(run_id: str) -> None:
    """Note that this thread works for a run: the connections that it opens and claims are the run's."""
    _RUN.set(run_id)


def claim(connection: duckdb.DuckDBPyConnection) -> None:
    """Let a connection belong to the run that this thread works for, whoever opened it."""
    with _LOCK:
        _OPEN[connection] = _RUN.get()


def interrupt(run_id: str | None = None) -> None:
    """Interrupt what the connections of a run are doing, or all of this process; each fails with a duckdb.Error."""
    with _LOCK:
        connections = [each for each, owner in _OPEN.items() if run_id in (None, owner)]
    for connection in connections:
        with suppress(duckdb.Error):  # closed
            connection.interrupt()


def close(connection: duckdb.DuckDBPyConnection) -> None:
    """End a session and what is left of its transaction, also when the database that is attached to it is gone."""
    # Closing is also what frees a stream that was left half-read; without it the process would never end.
    connection.interrupt()
    # Not left to close(): a rollback that fails in there, for want of a server, aborts the whole process.
    try:
        connection.execute("ROLLBACK")
    except duckdb.FatalException:
        # It lost its server in the middle of a COPY, and refuses all statements. close() would roll back all the same,
        # and so would its destructor: that aborts the process. So it is never freed, not even when the process ends.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        return
    except duckdb.Error:
        pass
    connection.close()
    _ATTACHED.discard(connection)


def attach(
    connection: duckdb.DuckDBPyConnection,
    alias: str,
    url: str,
    *,
    variable: str,
    attach_options: str = "",
) -> None:
    """Attach a PostgreSQL database as ``alias``; its settings are those of session_settings.py, in each transaction.

    ``attach_options`` are DuckDB's own. The password travels in a DuckDB secret: DuckDB quotes the ATTACH string in its
    errors, a secret never.
    Raises ConnectionFailed, naming the environment ``variable`` to look at.
    """
    _load_postgres_extension(connection)
    _ATTACHED.add(connection)
    parts = conninfo(url)
    secret = [f"{key} {literal(parts.pop(key))}" for key in _SECRET_KEYS if key in parts]
    connection.execute(f"CREATE SECRET {quoted(alias)} ({', '.join(['TYPE postgres', *secret])})")
    attempts = [parts, {**parts, "options": f"{parts['options']} {_UNLIMITED}"}]
    while attempts:
        target = literal(psycopg.conninfo.make_conninfo("", **attempts.pop(0)))
        try:
            connection.execute(
                f"ATTACH {target} AS {quoted(alias)} (TYPE postgres, SECRET {quoted(alias)}{attach_options})"
            )
            return
        except duckdb.Error as error:
            if attempts and _TOOK_TOO_LONG in str(error):
                continue
            raise unreachable(variable, reason(error), url) from None


def reason(error: Exception) -> str:
    """The telling part of a database error on one line: without DuckDB's preamble and without the statement."""
    if trouble := spill.trouble(str(error)):
        return trouble
    text = re.sub(r'^.*?Unable to connect to Postgres at "[^"]*":\s*', "", str(error), flags=re.S)
    text = re.sub(r'^.*?Failed to [^"]*".*":\s*(?=ERROR|FATAL|server|could|SSL|no conn)', "", text, flags=re.S)
    if "conflict with recovery" in text:
        return f"{one_line(text)}: set hot_standby_feedback on that standby, or a longer max_standby_streaming_delay"
    return one_line(text)


_S3_ANSWER = re.compile(r"<Code>(?P<code>\w+)</Code>\s*<Message>(?P<message>[^<]*)</Message>")
_NO_CREDENTIALS = ("an error occurred while loading credentials", "AWS_EC2_METADATA_DISABLED")
_CAUSE = "↳"
_SPILLS, _MORE_ROOM = "temp_file_limit", "let a superuser raise it for that login, or give the login more work_mem"


def one_line(error: Exception | str) -> str:
    """The first lines of a message as one, without statement, closing full stop and colours.

    Of a chain of errors, as delta-rs gives it, the outermost and the innermost; of an answer of S3, the answer. What
    to do is said of a limit of PostgreSQL's that names no way out.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    if answer := _S3_ANSWER.search(text):
        return f"S3 answers {answer['code']}: {answer['message'].rstrip('.')}"[:500]
    if any(each in text for each in _NO_CREDENTIALS):
        return "no AWS credentials were found, neither in the environment nor in a profile, nor of a task's role"
    outermost, *others = text.split(_CAUSE)
    text = f"{outermost.strip()}: {others[-1].strip()}" if others else text
    # PostgreSQL shows the place in the statement: the line, and below it a mark.
    lines = [line.strip() for line in text.splitlines() if line.strip(" ^") and not line.startswith("LINE ")]
    text = " ".join(lines[:2]).rstrip(".")[:500]
    return f"{text}: {_MORE_ROOM}" if _SPILLS in text and _MORE_ROOM not in text else text


def batches(result: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
    """Arrow batches of a result, as they come. What fails on the way is a duckdb.Error, as if it had failed at once.

    The next statement of the same connection ends them without a word, whatever is left: read them to the end first.
    """
    try:
        yield from sized(result.to_arrow_reader(min(BATCH_ROWS, VECTOR_ROWS)), BATCH_ROWS)
    except (pa.ArrowException, OSError) as error:
        kind = duckdb.OutOfMemoryException if "Out of Memory Error" in str(error) else duckdb.Error
        raise kind(str(error)) from error


def is_out_of_memory(error: duckdb.Error) -> bool:
    """Whether DuckDB has no more memory, which it also says in errors of other kinds: of a commit, or of batches."""
    says = ("Out of Memory Error", "failed to pin block", "could not allocate block")
    return isinstance(error, duckdb.OutOfMemoryException) or any(each in str(error) for each in says)


@contextmanager
def readable_errors(what: str) -> Iterator[None]:
    """Turn DuckDB's errors into a PlatformError that says ``what`` failed and why."""
    try:
        yield
    except duckdb.Error as error:
        raise PlatformError(f"{what}: {reason(error)}.") from error


def _load_postgres_extension(connection: duckdb.DuckDBPyConnection) -> None:
    """Load the extension from its wheel: no download at run time.

    The wheel calls the file postgres.duckdb_extension, LOAD wants the entry point's name, postgres_scanner; a link
    gives it that name. DuckDB itself checks that the file is of its own version.
    """
    package = importlib.util.find_spec("duckdb_extension_postgres")
    folders = list(package.submodule_search_locations or []) if package else []
    found = next((path for folder in folders for path in Path(folder).rglob("postgres.duckdb_extension")), None)
    if found is None:
        raise PlatformError("The package duckdb-extension-postgres is not installed: run `make install`.")
    with spill.told(), tempfile.TemporaryDirectory(prefix="totesys-") as folder:
        link = Path(folder, "postgres_scanner.duckdb_extension")
        link.symlink_to(found)
        connection.execute(f"LOAD {literal(str(link))}")
