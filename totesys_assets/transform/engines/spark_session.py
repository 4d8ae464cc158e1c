"""Sessions with a Spark Connect server, and its errors as sentences that name the server without its secrets.

Belongs here: what must be so in every session, and what may go wrong on the way to the server. Does not belong here:
what is asked of it (in_spark.py). Nothing of Spark is imported before a session is opened.
"""

from __future__ import annotations

import logging
import re
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from totesys_assets.engine import one_line
from totesys_assets.errors import ConnectionFailed, PlatformError
from totesys_assets.lake.commit import LostRace

if TYPE_CHECKING:
    from pyspark.sql.connect.session import SparkSession

_PORT = 15002
_CONNECT_TIMEOUT_SECONDS = 10
# Spark's client would try for ten minutes whether a server that is gone comes back.
_RETRIES = 3
# Before, a SELECT that cannot be computed gave NULL; there were no timestamps without a time zone before 3.4.
_LEAST_VERSION = (4, 0)
_CONFIGURATION = {
    "spark.sql.session.timeZone": "UTC",
    # What is no number or no date, or too large, is an error, as in DuckDB; else it would be NULL.
    "spark.sql.ansi.enabled": "true",
    # Else moments are INT96, which have no statistics and are deprecated.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # Days before 1582 are of the calendar that DuckDB and PostgreSQL have.
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
}
# What the client warns of: a pandas of which nothing is used, and that it has tried often enough before it failed.
_WARNINGS = ("PySpark does not yet fully support pandas", r"\[RETRIES_EXCEEDED\]")
# Beside the exception, the client prints what the server said once more, with the stack of its Java.
_LOGGERS = ("SQLQueryContextLogger", "DataFrameQueryContextLogger")


def shown(remote: str) -> str:
    """The server of ``SPARK_REMOTE`` as messages name it: what follows the address may hold a token."""
    parts = urlsplit(remote)
    return f"sc://{parts.hostname}:{parts.port or _PORT}"


@contextmanager
def connected(remote: str, what: str) -> Iterator[SparkSession]:
    """A session of its own with the server at ``remote``: two builds at once have views of the same names.

    What goes wrong in the block is a PlatformError that says that ``what`` failed; a PlatformError or LostRace stays.
    Raises ConnectionFailed, or PlatformError where the client is missing, or the server is too old.
    """
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    made = _client()
    _reach(remote)
    session = None
    try:
        session = made.session(connection=remote)
        session.client.set_retry_policies([made.policy(max_retries=_RETRIES, max_backoff=1000)])
        _require_version(remote, str(session.version))
        for name, value in _CONFIGURATION.items():
            session.conf.set(name, value)
        yield session
    except (PlatformError, LostRace):
        raise
    except Exception as error:
        if not _is_of_spark(error):
            raise
        raise PlatformError(
            f"{what} failed: SPARK_REMOTE ({shown(remote)}) says: {_reason(error, remote)}. Nothing was committed; "
            "check the server, then refresh."
        ) from error
    finally:
        if session is not None:
            with suppress(Exception):  # a server that is gone has no session left to end
                session.stop()


class _Client:
    """What of Spark's client is used."""

    def __init__(self) -> None:
        with _main_module_of_a_file(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of pandas, which is not used
            from pyspark.sql.connect.client.retries import DefaultPolicy
            from pyspark.sql.connect.session import SparkSession

        self.session: Any = SparkSession
        self.policy: Any = DefaultPolicy


@contextmanager
def _main_module_of_a_file() -> Iterator[None]:
    """Let the main module have a file. Without one, as in python -c, the client believes itself tested, and exits."""
    main = sys.modules["__main__"]
    if hasattr(main, "__file__"):
        yield
        return
    main.__file__ = "main"
    try:
        yield
    finally:
        del main.__file__


@cache
def _client() -> _Client:
    for name in _LOGGERS:
        logging.getLogger(name).disabled = True
    try:
        return _Client()
    except ImportError as error:  # pyspark's own words for a package that it misses
        raise PlatformError(
            "TOTESYS_ENGINE is spark, and the client of Spark Connect is not installed: run "
            f"pip install 'totesys-assets[spark]' ({one_line(error)})."
        ) from error


def _reach(remote: str) -> None:
    """Try the address itself: Spark's client would say less, and only after some time."""
    parts = urlsplit(remote)
    try:
        with socket.create_connection((str(parts.hostname), parts.port or _PORT), _CONNECT_TIMEOUT_SECONDS):
            pass
    except OSError as error:
        why = (error.strerror or str(error)).rstrip(".")
        raise ConnectionFailed(
            f"SPARK_REMOTE cannot be reached ({shown(remote)}): {why}. Check the address, and that a Spark Connect "
            "server listens there."
        ) from error


def _require_version(remote: str, version: str) -> None:
    found = tuple(int(each) for each in re.findall(r"\d+", version)[:2])
    if found < _LEAST_VERSION:
        raise PlatformError(
            f"SPARK_REMOTE ({shown(remote)}) is Spark {version}, and the platform needs "
            f"{'.'.join(map(str, _LEAST_VERSION))} or later: point it at a newer server."
        )


def _is_of_spark(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in ("pyspark", "grpc")


def _reason(error: Exception, remote: str) -> str:
    """What the server said, in a line: without the stack of its Java, and without what SPARK_REMOTE holds."""
    text = str(error)
    if details := re.search(r'details = "(.*?)"\n', text, re.S):
        text = details[1]
    text = text.partition("JVM stacktrace:")[0].partition("\n\tat ")[0]
    for secret in re.findall(r"=([^;]+)", remote):
        text = text.replace(secret, "…")
    return one_line(text.strip()) or type(error).__name__
