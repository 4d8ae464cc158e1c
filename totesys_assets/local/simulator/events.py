"""Events: what each event of the traffic changes in ToteSys, and the sentence that says so.

Belongs here: one method per kind of event, run in a transaction that is open. Does not belong here: which event comes
when, transactions and connections (traffic.py).
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from totesys_assets.counting import counted
from totesys_assets.local.simulator.reference import (
    DESIGN_NAMES,
    MANAGERS,
    PATHS,
    PURCHASE_PAYMENT,
    SALES_RECEIPT,
    STREETS,
    TOWNS,
    mailboxes,
)
from totesys_assets.local.simulator.statements import statement
from totesys_assets.local.simulator.wording import words

# What the back office changes of a row: (table, column).
CHANGES = (
    ("sales_order", "design_id"),
    ("sales_order", "staff_id"),
    ("sales_order", "agreed_delivery_date"),
    ("sales_order", "agreed_delivery_location_id"),
    ("purchase_order", "staff_id"),
    ("purchase_order", "item_code"),
    ("purchase_order", "agreed_delivery_date"),
    ("purchase_order", "agreed_delivery_location_id"),
    ("design", "file_location"),
)
REFERRED = {"design_id": "design", "staff_id": "staff", "agreed_delivery_location_id": "address"}
SETTLES_BACK, SETTLES_AHEAD = 366, 7  # days around today that a settled payment may be dated


@dataclass(frozen=True)
class Events:
    """The events, with all that is left to chance in them drawn from ``random``."""

    random: random.Random

    def sell(self, connection: psycopg.Connection) -> str:
        """Place a sales order with its transaction and its payment."""
        order = self._terms(connection) | {
            "design": self._any(connection, "design"),
            "quantity": self.random.randint(1001, 99973),
            "price": self._cents(200, 400),
        }
        number, payment_date = _row(connection.execute(statement("place_sale"), order))
        transaction = _row(connection.execute(statement("open_transaction"), ["SALE", number, None]))[0]
        self._expect_payment(connection, order, transaction, payment_date, SALES_RECEIPT)
        country = _row(connection.execute("SELECT country FROM address WHERE address_id = %(address)s", order))[0]
        return f"new sales order {number}, {order['quantity']:,} units to {country}"

    def buy(self, connection: psycopg.Connection) -> str:
        """Place a purchase order with its transaction and its payment."""
        order = self._terms(connection) | {
            "item": self._item_code(),
            "quantity": self.random.randint(1, 999),
            "price": self._cents(332, 99907),
        }
        number, payment_date = _row(connection.execute(statement("place_purchase"), order))
        transaction = _row(connection.execute(statement("open_transaction"), ["PURCHASE", None, number]))[0]
        self._expect_payment(connection, order, transaction, payment_date, PURCHASE_PAYMENT)
        return f"new purchase order {number}, {order['quantity']} of item {order['item']}"

    def _terms(self, connection: psycopg.Connection) -> dict[str, Any]:
        """Agree on what sales and purchases have in common."""
        return {
            "staff": self._any(connection, "staff"),
            "counterparty": self._any(connection, "counterparty"),
            "currency": self._any(connection, "currency"),
            "address": self._any(connection, "address"),
            "delivery": timedelta(seconds=self.random.randrange(7 * 86400)),
            "payment": timedelta(seconds=self.random.randrange(6 * 86400)),
        }

    def _expect_payment(
        self, connection: psycopg.Connection, order: dict[str, Any], transaction: int, payment_date: str, kind: int
    ) -> None:
        payment = order | {
            "transaction": transaction,
            "payment_type": kind,
            "payment_date": payment_date,
            "company_account": self.random.randint(10_000_000, 99_999_999),
            "counterparty_account": self.random.randint(10_000_000, 99_999_999),
        }
        connection.execute(statement("expect_payment"), payment)

    def design(self, connection: psycopg.Connection) -> str:
        """Add a design that sales may be of from now on."""
        name = self.random.choice(DESIGN_NAMES)
        drawn_on = _today(connection) - timedelta(days=self.random.randrange(730))
        code = "".join(self.random.choices(string.ascii_lowercase + string.digits, k=4))
        file_name = f"{name.lower()}-{drawn_on:%Y%m%d}-{code}.json"
        values = [name, self.random.choice(PATHS), file_name]
        number = _row(connection.execute(statement("add_design"), values))[0]
        return f"new design {number}, {name}"

    def update(self, connection: psycopg.Connection, *, stamped: bool) -> str:
        """Change a column of an order, or of a design, of any age, with ``last_updated`` if ``stamped``."""
        table, column = self.random.choice(CHANGES)
        found = self._any_by_age(connection, table, column)
        if found is None:
            return f"no {words(table)} to change"
        key, old = found
        new = self._another(connection, column, old)
        _write(connection, table, key, {column: new}, stamped=stamped)
        return f"{words(table)} {key}: {column} {old} is now {new}" + ("" if stamped else ", silently")

    def _another(self, connection: psycopg.Connection, column: str, old: Any) -> Any:
        """Choose a value for ``column`` of an order or a design that differs from ``old``."""
        if column in REFERRED:
            return self._any(connection, REFERRED[column], but=old)
        if column == "agreed_delivery_date":
            today = _today(connection)
            days = (str(today + timedelta(days=ahead)) for ahead in range(1, 15))
            return self.random.choice([day for day in days if day != old])
        if column == "item_code":
            while (code := self._item_code()) == old:  # as in a second run with the same seed
                pass
            return code
        return self.random.choice([path for path in PATHS if path != old])

    def settle(self, connection: psycopg.Connection) -> str:
        """Mark a few payments as paid: those due first, then those of the days ahead."""
        today = _today(connection)
        days = (today + timedelta(days=offset) for offset in range(-SETTLES_BACK, SETTLES_AHEAD + 1))
        weekdays = [str(day) for day in days if day.isoweekday() <= 5]
        dates = [row[0] for row in connection.execute(statement("settle"), [weekdays, self.random.randint(1, 8)])]
        if not dates:
            return "no payment to settle"
        return f"{counted(len(dates), 'payment')} settled, dated {', '.join(sorted(set(dates)))}"

    def delete(self, connection: psycopg.Connection) -> str:
        """Delete an order, most often a young one, with its transaction and its payment."""
        age = int(self.random.expovariate(1 / 20))
        found = connection.execute(statement("young_transaction"), [age]).fetchone()
        if found is None:
            return "no order to delete"
        transaction, sales_order, purchase_order = found
        connection.execute("DELETE FROM payment WHERE transaction_id = %s", [transaction])
        connection.execute("DELETE FROM transaction WHERE transaction_id = %s", [transaction])
        if sales_order is not None:
            connection.execute("DELETE FROM sales_order WHERE sales_order_id = %s", [sales_order])
            return f"sales order {sales_order} deleted, with its transaction and its payment"
        connection.execute("DELETE FROM purchase_order WHERE purchase_order_id = %s", [purchase_order])
        return f"purchase order {purchase_order} deleted, with its transaction and its payment"

    def move_address(self, connection: psycopg.Connection) -> str:
        """Give an address another street and another phone."""
        address = self._any(connection, "address")
        street = f"{self.random.randint(1, 2999)} {self.random.choice(STREETS)}"
        phone = f"{self.random.randrange(10_000):04} {self.random.randrange(1_000_000):06}"
        _write(connection, "address", address, {"address_line_1": street, "phone": phone}, stamped=True)
        return f"address {address} is now {street}, phone {phone}"

    def reorganize_department(self, connection: psycopg.Connection) -> str:
        """Give a department another head, or move it to another town."""
        department = self._any(connection, "department")
        read = "SELECT department_name, location, manager FROM department WHERE department_id = %s"
        name, location, manager = _row(connection.execute(read, [department]))
        # Leds stays: pipelines must bring the source's typos over as they are.
        if location == "Leds" or self.random.random() < 0.5:
            head = self.random.choice([other for other in MANAGERS if other != manager])
            _write(connection, "department", department, {"manager": head}, stamped=True)
            return f"department {name} is now led by {head}"
        town = self.random.choice([other for other in TOWNS if other != location])
        _write(connection, "department", department, {"location": town}, stamped=True)
        return f"department {name} moved to {town}"

    def move_staff(self, connection: psycopg.Connection) -> str:
        """Move a member of staff to another department, or give them another e-mail address."""
        staff = self._any(connection, "staff")
        read = "SELECT first_name, last_name, department_id, email_address FROM staff WHERE staff_id = %s"
        first, last, department, mailbox = _row(connection.execute(read, [staff]))
        if self.random.random() < 0.5:
            new = self._any(connection, "department", but=department)
            _write(connection, "staff", staff, {"department_id": new}, stamped=True)
            return f"{first} {last} moved to department {new}"
        address = self.random.choice([other for other in mailboxes(first, last) if other != mailbox])
        _write(connection, "staff", staff, {"email_address": address}, stamped=True)
        return f"{first} {last} is now at {address}"

    # Choices

    def _any(self, connection: psycopg.Connection, table: str, but: int | None = None) -> int:
        """Key of any row of a table of few rows, save ``but``; the same for the same seed and rows."""
        query = "SELECT {key} FROM {table} WHERE {key} IS DISTINCT FROM %s ORDER BY hashint8extended({key}, %s) LIMIT 1"
        chosen = connection.execute(sql.SQL(query).format(**_names(table)), [but, self.random.getrandbits(62)])
        return int(_row(chosen)[0])

    def _any_by_age(self, connection: psycopg.Connection, table: str, column: str) -> tuple[int, Any] | None:
        """Key and ``column`` of any row of a table of many rows, found through its index; None when it is empty."""
        names = _names(table, column)
        span = _row(connection.execute(sql.SQL("SELECT min({key}), max({key}) FROM {table}").format(**names)))
        if span[0] is None:
            return None
        read = "SELECT {key}, {column} FROM {table} WHERE {key} >= %s ORDER BY {key} LIMIT 1 FOR UPDATE"
        return connection.execute(sql.SQL(read).format(**names), [self.random.randint(*span)]).fetchone()

    def _item_code(self) -> str:
        return "".join(self.random.choices(string.ascii_uppercase + string.digits, k=7))

    def _cents(self, low: int, high: int) -> Decimal:
        return Decimal(self.random.randint(low, high)) / 100


def _names(table: str, column: str | None = None) -> dict[str, sql.Identifier]:
    names = {"table": sql.Identifier(table), "key": sql.Identifier(f"{table}_id")}
    return names | ({"column": sql.Identifier(column)} if column else {})


def _write(connection: psycopg.Connection, table: str, key: int, values: dict[str, Any], *, stamped: bool) -> None:
    """Update one row: with ``last_updated`` as the application does, or without as the back office does."""
    changes: list[sql.Composable] = [sql.SQL("{} = %s").format(sql.Identifier(column)) for column in values]
    if stamped:
        changes.append(sql.SQL("last_updated = CURRENT_TIMESTAMP"))
    query = sql.SQL("UPDATE {table} SET {changes} WHERE {key} = %s")
    connection.execute(query.format(changes=sql.SQL(", ").join(changes), **_names(table)), [*values.values(), key])


def _row(cursor: psycopg.Cursor) -> tuple[Any, ...]:
    """Fetch the one row that the statement must give."""
    row = cursor.fetchone()
    if row is None:
        raise LookupError("ToteSys lacks reference rows that traffic needs: fill it with create() first.")
    return row


def _today(connection: psycopg.Connection) -> date:
    today: date = _row(connection.execute("SELECT CURRENT_DATE"))[0]
    return today
