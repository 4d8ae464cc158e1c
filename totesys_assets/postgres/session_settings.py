"""The settings that every session of ours relies on, whatever a server, a database, a role or the environment says.

Belongs here: which they are, the text that sets them for one transaction, and the check that they took. Does not
belong here: what is read or written then.

They are set inside the transaction that needs them. Parameters of the start of a session would be refused by a pooler,
are overridden by variables such as PGTZ, and a pooler gives the next transaction another session. What a transaction
is (its isolation level, whether it may write) is said where it begins, and `role` is left alone: a URL may set it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from totesys_assets.engine import one_line
from totesys_assets.errors import PlatformError
from totesys_assets.libpq import conninfo, unreachable
from totesys_assets.sql_text import literal, quoted

if TYPE_CHECKING:
    import psycopg

# As current_setting() spells the values. row_security=off turns a filter into an error; nothing is looked up on a
# search_path. A lock that somebody holds, and a session that nobody ends, must not hold us, and through us a backfill,
# for ever.
SETTINGS: dict[str, str] = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "client_encoding": "UTF8",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "search_path": "pg_catalog, pg_temp",
    "row_security": "off",
    "statement_timeout": "1h",
    "lock_timeout": "1min",
    "idle_in_transaction_session_timeout": "1h",
}
# PostgreSQL knows them since 17, the second since some minor versions before, so that they can only be set by a query
# that asks for them first. The second would forbid the views of the warehouse.
_LIFTED = {"transaction_timeout": "0", "restrict_nonsystem_relation_kind": ""}
_LIFT = ", ".join(
    f"CASE WHEN current_setting({literal(name)}, true) IS NOT NULL THEN set_config({literal(name)}, {literal(value)}, "
    f"true) ELSE {literal(value)} END AS {name}"
    for name, value in _LIFTED.items()
)
_TRANSACTIONS = {
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
}
_NAMES = ("search_path",)  # a list of names: as one literal it would be one name


def set_local(extra: Mapping[str, str] | None = None) -> str:
    """SET LOCAL statements of all settings, ``extra`` in addition or instead. They take no snapshot."""
    return "; ".join(_set("SET LOCAL", name, value) for name, value in {**SETTINGS, **(extra or {})}.items())


def set_session(extra: Mapping[str, str | None] | None = None) -> str:
    """SET statements for a session of which nobody else gets hold; ``extra`` in addition or instead, None: not at all.

    There, transactions are what they are by default.
    """
    settings = {**SETTINGS, **_TRANSACTIONS, **(extra or {})}
    return "; ".join(_set("SET", name, value) for name, value in settings.items() if value is not None)


def _set(command: str, name: str, value: str) -> str:
    return f"{command} {name} = {value if name in _NAMES else literal(value)}"


def lift_limits() -> str:
    """SELECT of one row that takes away limits of a transaction that not every server knows."""
    return f"SELECT {_LIFT}"


def check_query(extra: Mapping[str, str] | None = None) -> str:
    """SELECT of one row, a column for each setting, for ``require``. It also does what ``lift_limits`` does.

    Being a SELECT, it takes the snapshot of a REPEATABLE READ transaction.
    """
    columns = [f"current_setting({literal(name)}) AS {quoted(name)}" for name in {**SETTINGS, **(extra or {})}]
    return f"SELECT {', '.join([*columns, _LIFT])}"


def require(found: tuple[object, ...] | None, variable: str, extra: Mapping[str, str] | None = None) -> None:
    """Raise PlatformError unless ``found``, the row of ``check_query``, is as was set; ``variable`` names the URL."""
    wanted = {**SETTINGS, **(extra or {}), **_LIFTED}
    for (name, value), is_now in zip(wanted.items(), found or [None] * len(wanted), strict=True):
        if is_now != value:
            raise PlatformError(
                f"A transaction of {variable} does not keep its settings: {name} is {is_now!r} instead of {value!r}, "
                f"so that values could be read as others. Let {variable} lead to the server itself, or to a pooler "
                "that gives a transaction one session."
            )


def open_session(url: str, *, variable: str, read_only: bool) -> psycopg.Connection[tuple[object, ...]]:
    """A session of psycopg that sends nothing at its start but what the URL says, for READ COMMITTED transactions.

    Every transaction begins with ``begin``. Raises ConnectionFailed, naming the environment ``variable`` to look at.
    """
    import psycopg.conninfo

    try:
        # A pooler in between may give every transaction another session: nothing is prepared.
        connection = psycopg.connect(psycopg.conninfo.make_conninfo("", **conninfo(url)), prepare_threshold=None)
    except psycopg.OperationalError as error:
        raise unreachable(variable, one_line(error), url) from None
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    connection.read_only = read_only
    connection.deferrable = False
    return connection


def begin(
    connection: psycopg.Connection[tuple[object, ...]], variable: str, extra: Mapping[str, str] | None = None
) -> None:
    """Set the settings in the connection's transaction, its first statement, and check them. Raises PlatformError."""
    cursor = connection.execute(f"{set_local(extra)}; {check_query(extra)}".encode())
    while cursor.nextset():
        pass
    require(cursor.fetchone(), variable, extra)
