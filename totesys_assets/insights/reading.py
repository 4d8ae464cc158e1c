"""Reading the warehouse with a reader's rights: short transactions that cannot write, and what was loaded when.

Belongs here: the sessions of the dashboard and of other readers that run for long. Does not belong here: what is asked.

A session is kept for the next transaction. One that the server has ended is replaced without an error: readers go on by
themselves when the database was away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import sqlglot
from sqlglot import exp

from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.catalogue.views import views
from totesys_assets.databases import warehouse_only
from totesys_assets.days import MOST_DAYS_WITHOUT_A_RATE
from totesys_assets.engine import one_line
from totesys_assets.errors import ConnectionFailed, NoRates, PlatformError
from totesys_assets.insights.questions import Answer, answer, questions
from totesys_assets.postgres import session_settings
from totesys_assets.sql_text import quoted
from totesys_assets.warehouse.kept import made_of

if TYPE_CHECKING:
    from totesys_assets.local.locks import Report
    from totesys_assets.settings import Settings
    from totesys_assets.warehouse.notes import Connection

# At a million orders most questions take 30 ms; what was known takes up to a second. Nobody waits longer than this.
STATEMENT_TIMEOUT = "15s"
_IDLE_SESSIONS = 4
# Every currency that has rates has them on every day, up to the same last one.
_RATED = """
SELECT currency_code FROM mart_exchange_rate WHERE day = (SELECT max(day) FROM mart_exchange_rate) ORDER BY 1
"""
_RATED_DAYS = "SELECT min(day), max(published_date), max(day) FROM mart_exchange_rate"
_FIRST_RECORD = "SELECT min(first_recorded_at) FROM _recorded"
_TRADED = "SELECT FROM dim_currency WHERE currency_code = %s LIMIT 1"
# Questions may read the notes as well. The ledger changes with every load, the others at these moments.
_LEDGER = "_ledger"
_CHANGED = {"_dead_letter": "noted_at", "_finding": "audited_at", "_followed": "noted_at"}


@dataclass(frozen=True)
class Loads:
    """When each table was last loaded, and what changes with every load of it."""

    at: dict[str, datetime]
    marks: dict[str, str]

    def of(self, tables: frozenset[str]) -> tuple[str, ...]:
        """What changes when one of ``tables`` is loaded: answers are cached by it."""
        return tuple(self.marks.get(table, "") for table in sorted(tables))


class Reader:
    """The warehouse behind ``url``, read only. ``variable`` is the setting that errors name."""

    def __init__(self, url: str, schema: str, *, variable: str, name: str) -> None:
        import psycopg.conninfo

        parts = psycopg.conninfo.conninfo_to_dict(url)
        self._url = psycopg.conninfo.make_conninfo("", **{"application_name": name, **parts})
        self._schema, self._variable = schema, variable
        self._idle: list[Connection] = []
        self._lock = Lock()

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """One transaction that cannot write, with the search_path on the warehouse's schema.

        Raises ConnectionFailed when the database is away, PlatformError when the server gives up a statement or the
        login lacks a right.
        """
        import psycopg

        connection = self._begun()
        try:
            yield connection
            connection.rollback()
        except psycopg.errors.QueryCanceled as error:
            connection.close()
            raise PlatformError(f"The warehouse gave up a statement: {one_line(error)}.") from error
        except psycopg.OperationalError as error:
            connection.close()
            raise ConnectionFailed(f"The warehouse went away: {one_line(error)}.") from error
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            connection.close()
            raise PlatformError(
                f'The warehouse has not all tables and columns in schema "{self._schema}" yet: totesys refresh makes '
                "them, or, after an upgrade of the platform, totesys migrate."
            ) from error
        except psycopg.Error as error:
            connection.close()
            raise PlatformError(f"The warehouse refused a statement: {one_line(error)}.") from error
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if len(self._idle) < _IDLE_SESSIONS:
                self._idle.append(connection)
                return
        connection.close()

    def _begun(self) -> Connection:
        """A session in a transaction: one that was kept, or a new one."""
        import psycopg

        while True:
            with self._lock:
                kept = self._idle.pop() if self._idle else None
            if kept is None:
                connection = session_settings.open_session(self._url, variable=self._variable, read_only=True)
                return self._prepared(connection)
            with suppress(psycopg.OperationalError, psycopg.InterfaceError):  # the server has ended it
                return self._prepared(kept)

    def _prepared(self, connection: Connection) -> Connection:
        try:
            session_settings.begin(connection, self._variable, {"statement_timeout": STATEMENT_TIMEOUT})
            connection.execute("SELECT set_config('search_path', %s, true)", [f"{quoted(self._schema)}, pg_temp"])
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the sessions that are kept."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def answer(self, question: str, **parameters: object) -> Answer:
        """The answer to a question of ``questions/``."""
        with self.session() as connection:
            return answer(connection, question, **parameters)

    def check_rates(self, parameters: Mapping[str, object]) -> None:
        """Raises NoRates if a currency or day for which money is to be converted has no rates, while others have some.

        What ToteSys trades in may be asked for without: money that is in it already needs no rate.
        """
        if "currency" not in parameters:
            return
        if (day := parameters.get("rate_day")) is not None:
            first, newest, last = self._rated_days()
            # The newest rates hold on the days since then that the mart has. Of tomorrow none are known.
            until = first and min(last, max(newest, datetime.now(UTC).date()))
            if first is not None and not str(first) <= str(day) <= str(until):
                raise NoRates(f"There are no rates of {day}. There are rates of the days from {first} to {newest}.")
        with self.session() as connection:
            rated = [str(code) for (code,) in connection.execute(_RATED)]
            is_traded = connection.execute(_TRADED, [parameters["currency"]]).fetchone() is not None
        if rated and parameters["currency"] not in rated and not is_traded:
            raise NoRates(
                f"There are no rates of {parameters['currency']}. There are rates of {', '.join(rated)}: the euro, and "
                "what ToteSys trades in."
            )

    def remarks(self, parameters: Mapping[str, object]) -> list[str]:
        """Sentences about an answer: it was converted at old rates, or nothing had been recorded by the moment."""
        said = []
        if "currency" in parameters:
            _, newest, _ = self._rated_days()
            until, today = parameters.get("rate_day") or parameters.get("last"), datetime.now(UTC).date()
            until = min(until, today) if isinstance(until, date) else today
            if newest is not None and (until - newest).days > MOST_DAYS_WITHOUT_A_RATE:
                said.append(f"The newest rates are of {newest}: money of later days is converted at these.")
        if isinstance(moment := parameters.get("moment"), datetime):
            with self.session() as connection:
                ((first,),) = connection.execute(_FIRST_RECORD).fetchall()
            if first is not None and moment < first:
                said.append(f"Nothing was known then: the first record is of {first:%Y-%m-%d %H:%M:%S} UTC.")
        return said

    def _rated_days(self) -> tuple[Any, Any, Any]:
        """The first day that has rates, that of the newest, and the last on which these hold; None without any."""
        with self.session() as connection:
            ((first, newest, last),) = connection.execute(_RATED_DAYS).fetchall()
        return first, newest, last

    def loads(self) -> Loads:
        """What the ledger of loads says. Empty before the first load."""
        with self.session() as connection:
            there = connection.execute(
                "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NOT NULL",
                [[_LEDGER, *_CHANGED]],
            ).fetchall()
            if (_LEDGER,) not in there:
                return Loads({}, {})
            found = connection.execute(
                "SELECT table_name, max(loaded_at), concat_ws(' ', max(loaded_at), count(*)) FROM _ledger GROUP BY 1"
            ).fetchall()
            noted = {name: _mark(connection, name, at) for name, at in _CHANGED.items() if (name,) in there}
        at, marks = {table: at for table, at, _ in found}, {table: mark for table, _, mark in found}
        return Loads(at, {**marks, **noted, _LEDGER: " ".join(marks.values())})


def _mark(connection: Connection, table: str, changed: str) -> str:
    from psycopg import sql

    query = sql.SQL("SELECT concat_ws(' ', max({}), count(*)) FROM {}")
    row = connection.execute(query.format(sql.Identifier(changed), sql.Identifier(table))).fetchone()
    return str(row)


@contextmanager
def opened(settings: Settings, name: str, report: Report | None = None) -> Iterator[Reader]:
    """A reader of the warehouse, for the block: that of WAREHOUSE_READER_URL, of WAREHOUSE_URL, or the embedded one.

    The server calls its sessions ``name``. Raises NoHome.
    """
    url = settings.warehouse_reader_url
    variable = "WAREHOUSE_READER_URL" if url else "WAREHOUSE_URL"
    with nullcontext(url) if url else warehouse_only(settings, report) as url:
        reader = Reader(url, settings.warehouse_schema, variable=variable, name=name)
        try:
            yield reader
        finally:
            reader.close()


@cache
def tables_of(question: str) -> frozenset[str]:
    """The tables of the warehouse that a question reads, also through views."""
    return _tables(questions()[question].sql.replace("%(", ":").replace(")s", ""))


@cache
def _tables(text: str) -> frozenset[str]:
    found: set[str] = set()
    parsed = sqlglot.parse_one(text, read="postgres")
    within = {each.alias_or_name for each in parsed.find_all(exp.CTE)}
    of_views = {view.name: view.sql for view in views()}
    for name in {each.name for each in parsed.find_all(exp.Table)} - within - {""}:  # a function has no name
        fact = f"fact_{name.partition('_')[2]}"
        if name in of_views:
            found |= _tables(of_views[name])
        elif name.startswith(("current_", "history_")) and fact in catalogue().warehouse:
            found.add(fact)
        else:
            found |= made_of(name, catalogue()) or {name}
    return frozenset(found)
