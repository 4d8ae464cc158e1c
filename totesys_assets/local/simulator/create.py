"""Creation: ToteSys in an empty database, filled with years of invented trade.

Belongs here: in which order and from which numbers the tables are filled. Does not belong here: the statements, which
are in sql/, and what names and places there are (reference.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Self

import psycopg
from psycopg import sql

from totesys_assets.local.simulator.reference import (
    ADDRESSES,
    COUNTERPARTIES,
    CURRENCIES,
    DESIGN_NAMES,
    PATHS,
    PURCHASE_PAYMENT,
    SALES_RECEIPT,
    STAFF,
    reference_rows,
)
from totesys_assets.local.simulator.statements import statement

# Rows at scale 1: ToteSys as it stood after two years.
SALES = 11_180
PURCHASES = 4_650
DESIGNS = 470
FIRST_DESIGNS = 10  # present before the first order

OPENS, CLOSES = timedelta(hours=8), timedelta(hours=19)
# Reference rows are stamped at the first opening, orders come at least this much later.
HEAD_START = timedelta(seconds=10)

Report = Callable[[str], None]


class DatabaseNotEmptyError(ValueError):
    """The database that ``create`` was given already has tables of ToteSys."""


@dataclass(frozen=True)
class Sizes:
    """How many rows a scale asks for. Reference tables never grow, designs grow with the root of the scale."""

    sales: int
    purchases: int
    designs: int

    @classmethod
    def at(cls, scale: float) -> Self:
        """Sizes at ``scale``; at least one order of each kind."""
        return cls(
            sales=max(1, round(SALES * scale)),
            purchases=max(1, round(PURCHASES * scale)),
            designs=max(FIRST_DESIGNS + 1, round(DESIGNS * scale**0.5)),
        )


def create(
    url: str,
    *,
    scale: float = 1.0,
    seed: int = 1,
    until: datetime | None = None,
    days: int = 730,
    report: Report | None = None,
) -> None:
    """Make ToteSys in the empty database at ``url`` and fill it, in one transaction.

    ``scale`` 1 gives about 11,000 sales orders and 4,600 purchase orders, whatever ``days`` is: they are spread over
    the office hours of the ``days`` days that end at ``until`` (UTC; now when not given). The same arguments give the
    same rows. ``report`` is told what was done. The first day of the data is that of the earliest ``created_at``.
    Raises DatabaseNotEmptyError when a table of ToteSys is already there, ValueError for a scale, or days, that leave
    nothing to make.
    """
    tell = report or (lambda _: None)
    until = _naive_utc(until or datetime.now(UTC))
    hours = office_hours(until - timedelta(days=days), until)
    if scale <= 0 or not hours or hours[0][1] - hours[0][0] <= HEAD_START:
        raise ValueError(
            f"scale {scale:g} and days {days} leave no order to make: give a scale above 0, and days that hold a "
            f"Monday to Friday, 08:00 to 19:00, before {until:%Y-%m-%d %H:%M} UTC."
        )
    sizes = Sizes.at(scale)
    ddl = resources.files("totesys_assets.catalogue").joinpath("totesys.sql").read_text(encoding="utf-8")
    tables = re.findall(r"^CREATE TABLE (\w+)", ddl, re.MULTILINE)
    with psycopg.connect(url) as connection:
        _prepare_session(connection, seed)
        _refuse_existing(connection, tables)
        connection.execute(ddl)
        tell(f"made {len(tables)} tables")
        with _foreign_keys_set_aside(connection, tables):
            _fill_reference(connection, hours[0][0])
            _fill_trade(connection, sizes, hours, until)
        for table in tables:
            _finish(connection, table)
    tell(
        f"placed {sizes.sales:,} sales orders and {sizes.purchases:,} purchase orders "
        f"from {hours[0][0]:%Y-%m-%d} to {hours[-1][1]:%Y-%m-%d}"
    )


def office_hours(since: datetime, until: datetime) -> list[tuple[datetime, datetime]]:
    """List spans (opening, closing) of Monday to Friday, 08:00 to 19:00, from the day of ``since`` up to ``until``."""
    first = datetime.combine(since.date(), datetime.min.time())
    midnights = (first + timedelta(days=day) for day in range((until.date() - since.date()).days + 1))
    spans = ((day + OPENS, min(day + CLOSES, until)) for day in midnights if day.isoweekday() <= 5)
    return [(opening, closing) for opening, closing in spans if opening < closing]


def _naive_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _prepare_session(connection: psycopg.Connection, seed: int) -> None:
    connection.execute(sql.SQL(statement("prepare_session")).format(seed=sql.Literal(seed)))


def _refuse_existing(connection: psycopg.Connection, tables: Sequence[str]) -> None:
    found = [row[0] for row in connection.execute(statement("existing_tables"), [list(tables)])]
    if found:
        raise DatabaseNotEmptyError(
            f'The database "{connection.info.dbname}" already has tables of ToteSys ({", ".join(found)}): '
            "drop them, or give the URL of an empty database."
        )


@contextmanager
def _foreign_keys_set_aside(connection: psycopg.Connection, tables: Sequence[str]) -> Iterator[None]:
    """Drop the foreign keys of ``tables`` for the while, and restore them as they were.

    Checking a table once is far cheaper than checking each of its rows as it comes. An error needs no cleaning up:
    it rolls the drop back with all the rest.
    """
    keys = connection.execute(statement("foreign_keys"), [list(tables)]).fetchall()
    for table, name, _ in keys:
        drop = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}")
        connection.execute(drop.format(sql.Identifier(table), sql.Identifier(name)))
    yield
    for table, name, definition in keys:
        add = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}")
        connection.execute(add.format(sql.Identifier(table), sql.Identifier(name), sql.SQL(definition)))


def _finish(connection: psycopg.Connection, table: str) -> None:
    """Let the sequence of ``table`` go on after its highest key, and let the planner know its size."""
    names = {"table": sql.Identifier(table), "key": sql.Identifier(f"{table}_id")}
    setval = "SELECT setval(pg_get_serial_sequence(%s, %s), (SELECT max({key}) FROM {table}))"
    connection.execute(sql.SQL(setval).format(**names), [table, f"{table}_id"])
    connection.execute(sql.SQL("ANALYZE {table}").format(**names))


def _fill_reference(connection: psycopg.Connection, stamp: datetime) -> None:
    for table, columns, rows in reference_rows():
        names = sql.SQL(", ").join(map(sql.Identifier, (*columns, "created_at", "last_updated")))
        copy_in = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)
        with connection.cursor().copy(copy_in) as copy:
            for row in rows:
                copy.write_row((*row, stamp, stamp))


def _fill_trade(
    connection: psycopg.Connection, sizes: Sizes, hours: Sequence[tuple[datetime, datetime]], until: datetime
) -> None:
    opening = hours[0][0]
    spans = [(opening + HEAD_START, hours[0][1]), *hours[1:]]
    starts = [0]
    for opens, closes in spans:
        starts.append(starts[-1] + (closes - opens) // timedelta(milliseconds=1))
    values = {
        "sales": sizes.sales,
        "events": sizes.sales + sizes.purchases,
        "designs": sizes.designs,
        "first_designs": FIRST_DESIGNS,
        "opening": opening,
        "opens": [opens for opens, _ in spans],
        "starts": starts[:-1],
        "open_ms": starts[-1],
        "until": until,
        "design_names": list(DESIGN_NAMES),
        "paths": list(PATHS),
        "staff": len(STAFF),
        "counterparties": len(COUNTERPARTIES),
        "currencies": len(CURRENCIES),
        "addresses": len(ADDRESSES),
        "sales_receipt": SALES_RECEIPT,
        "purchase_payment": PURCHASE_PAYMENT,
    }
    connection.execute(statement("fill_designs"), values)
    connection.execute(statement("make_events"))
    connection.execute(statement("fill_events"), values)
    for name in ("fill_sales_orders", "fill_purchase_orders", "fill_transactions", "fill_payments"):
        connection.execute(statement(name), values)
