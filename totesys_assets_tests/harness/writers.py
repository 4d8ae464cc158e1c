"""The application's sessions: what they may do to ToteSys, statement by statement.

Belongs here: SQL that writers run, made of a kind and some small numbers, so that a failing series can be replayed and
made smaller. Does not belong here: who does what when, which is machine.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from itertools import count
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from totesys_assets_tests.harness.source import BY_DAY, COLUMNS

if TYPE_CHECKING:
    from totesys_assets_tests.harness.followed import Followed
    from totesys_assets_tests.harness.world import World

# A lock that another of our sessions holds will not be given up while we wait: there is one thread.
_PATIENCE = "-c lock_timeout=60 -c statement_timeout=20000"
# Offsets from the first day: three groups far enough apart to be ranges of their own.
OFFSETS = (0, 1, 2, 19, 20, 38, 39)
ZONES = ("UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kathmandu")

# Large enough to lie beside its row: an update of another column leaves it out of the log.
_LARGE = "repeat('{}', 3000)"
# Values to set, few, so that rows return to what they were; the last ones make dead letters.
_VALUES: dict[str, list[tuple[str, list[str]]]] = {
    "sales_order": [
        ("units_sold", ["1", "2", "1001"]),
        ("unit_price", ["2.43", "0.01", "'NaN'"]),
        ("agreed_delivery_date", ["'2024-08-24'", "'2024-02-29'", "'2024-02-30'", "'tomorrow'"]),
        ("design_id", ["(SELECT min(design_id) FROM design)", "(SELECT max(design_id) FROM design)"]),
    ],
    "purchase_order": [
        ("item_quantity", ["371", "372"]),
        ("item_code", ["'ZDOI5EA'", "''", "'É\"\\'"]),
        ("item_unit_price", ["361.39", "1.00", "'NaN'"]),
        ("agreed_payment_date", ["'2024-08-26'", "'2204-08-26'", "''"]),
    ],
    "payment": [
        ("paid", ["NOT paid", "true", "false"]),
        ("payment_amount", ["1.00", "2432.43", "'NaN'"]),
        ("payment_date", ["'2024-08-23'", "'2024-13-01'", "'2024-08-30'"]),
        ("last_updated", ["created_at", "'infinity'", "'0044-03-15 BC'"]),
    ],
    "transaction": [("transaction_type", ["'SALE'", "'PURCHASE'"]), ("last_updated", ["created_at", "'-infinity'"])],
    "design": [
        ("design_name", ["'Wooden'", "'Steel'", "''"]),
        ("file_location", [_LARGE.format("x"), _LARGE.format("y"), "'/'"]),
        ("last_updated", ["created_at", "'infinity'", f"'infinity', file_location = {_LARGE.format('z')}"]),
    ],
    "staff": [
        ("first_name", ["'Jeremie'", "'Ada'"]),
        (
            "department_id",
            [f"(SELECT {end}(department_id) FROM department)" for end in ("min", "max")],
        ),
    ],
    "address": [("phone", ["'1'", "'2'"]), ("address_line_2", ["NULL", "'Suite 2'", "''"])],
    "department": [("location", ["NULL", "'Leeds'", "'Leds'"]), ("created_at", ["last_updated", "'infinity'"])],
    "counterparty": [
        ("commercial_contact", ["NULL", "'Micheal Toy'"]),
        ("legal_address_id", ["(SELECT min(address_id) FROM address)", "(SELECT max(address_id) FROM address)"]),
    ],
    "currency": [("currency_code", ["'GBP'", "'USD'", "'XX'"])],
    "payment_type": [("payment_type_name", ["'SALES_RECEIPT'", "'SALES_REFUND'"])],
}
_TABLES = (*BY_DAY, *BY_DAY, *(table for table in COLUMNS if table not in BY_DAY))


class Scribe:
    """Makes the statements of one world: new keys are numbered, so that a replay gives the same."""

    def __init__(self, first_day: date) -> None:
        self._first_day = first_day
        self._keys = count(100)
        self._graveyard: list[tuple[str, str]] = []

    def write(self, writer: Writer, kind: str, a: int, b: int, c: int) -> None:
        """Let ``writer`` run a statement of ``kind``, made of three numbers."""
        KINDS[kind](self, writer, a, b, c)

    def _day(self, number: int) -> str:
        return str(self._first_day + timedelta(days=OFFSETS[number % len(OFFSETS)]))

    @staticmethod
    def _pick(table: str, number: int) -> str:
        """The key of one of the rows that the writer sees."""
        key = COLUMNS[table][0]
        return (
            f"(SELECT {key} FROM {table} ORDER BY {key} "
            f"OFFSET {number} % greatest(1, (SELECT count(*) FROM {table})) LIMIT 1)"
        )

    def _set(self, writer: Writer, table: str, assignment: str, number: int) -> None:
        writer.run(f"UPDATE {table} SET {assignment} WHERE {COLUMNS[table][0]} = {self._pick(table, number)}")

    def _change(self, a: int, b: int, c: int) -> tuple[str, str]:
        table = _TABLES[a % len(_TABLES)]
        column, values = _VALUES[table][b % len(_VALUES[table])]
        return table, f"{column} = {values[c % len(values)]}"

    def _update(self, writer: Writer, a: int, b: int, c: int) -> None:
        table, assignment = self._change(a, b, c)
        stamp = "" if "last_updated" in assignment else ", last_updated = clock_timestamp()"
        self._set(writer, table, assignment + stamp, b)

    def _silent_update(self, writer: Writer, a: int, b: int, c: int) -> None:
        table, assignment = self._change(a, b, c)
        self._set(writer, table, assignment, b // 2)

    def _same(self, writer: Writer, a: int, b: int, _: int) -> None:
        table = _TABLES[a % len(_TABLES)]
        self._set(writer, table, f"{COLUMNS[table][1]} = {COLUMNS[table][1]}", b)

    def _deal(self, writer: Writer, a: int, b: int, c: int) -> None:
        writer.run(self._deal_sql(f"'{self._day(a)} 10:{b % 60:02}:00.{c:03}'", a + b))

    def _deal_now(self, writer: Writer, a: int, b: int, _: int) -> None:
        """Stamped by a session's own clock: elsewhere in the world it may be tomorrow or yesterday."""
        zone = ZONES[a % len(ZONES)]
        writer.run(f"SET TimeZone = '{zone}'; {self._deal_sql('CURRENT_TIMESTAMP', b)}")

    def _deal_sql(self, stamp: str, number: int) -> str:
        key = next(self._keys)
        someone = ", ".join(self._pick(table, number) for table in ("staff", "counterparty"))
        currency, place = self._pick("currency", number), self._pick("address", number)
        if number % 2:
            order = (
                f"INSERT INTO sales_order VALUES ({key}, {stamp}, {stamp}, {self._pick('design', number)}, {someone}, "
                f"{number + 1}, 2.50, {currency}, '2024-08-24', '2024-08-23', {place})"
            )
            business = f"INSERT INTO transaction VALUES ({key}, 'SALE', {key}, NULL, {stamp}, {stamp})"
        else:
            order = (
                f"INSERT INTO purchase_order VALUES ({key}, {stamp}, {stamp}, {someone}, 'CODE', {number + 1}, 3.10, "
                f"{currency}, '2024-08-24', '2024-08-23', {place})"
            )
            business = f"INSERT INTO transaction VALUES ({key}, 'PURCHASE', NULL, {key}, {stamp}, {stamp})"
        payment = (
            f"INSERT INTO payment VALUES ({key}, {stamp}, {stamp}, {key}, {self._pick('counterparty', number)}, 9.99, "
            f"{currency}, {self._pick('payment_type', number)}, false, '2024-09-01', 12345678, 87654321)"
        )
        return f"{order}; {business}; {payment}"

    def _reference(self, writer: Writer, a: int, b: int, _: int) -> None:
        key, stamp = next(self._keys), f"'{self._day(a)} 08:00', '{self._day(a)} 08:00'"
        statements = [
            f"INSERT INTO address VALUES ({key}, 'Street', NULL, NULL, 'Town', '0{b}', 'Chad', '{b}', {stamp})",
            f"INSERT INTO department VALUES ({key}, 'New', NULL, NULL, {stamp})",
            f"INSERT INTO currency VALUES ({key}, 'CHF', {stamp})",
            f"INSERT INTO payment_type VALUES ({key}, 'PURCHASE_REFUND', {stamp})",
            f"INSERT INTO counterparty VALUES ({key}, 'Firm', {self._pick('address', b)}, NULL, NULL, {stamp})",
            f"INSERT INTO staff VALUES ({key}, 'A', 'B', {self._pick('department', b)}, 'a@b', {stamp})",
            f"INSERT INTO design VALUES ({key}, '{self._day(a)} 08:00', 'New', '/', 'f', '{self._day(a)} 08:00')",
        ]
        writer.run(statements[a % len(statements)])

    def _delete(self, writer: Writer, a: int, b: int, _: int) -> None:
        table = ("payment", "payment", *COLUMNS)[a % (len(COLUMNS) + 2)]
        writer.run(f"DELETE FROM {table} WHERE {COLUMNS[table][0]} = {self._pick(table, b)}")

    def _delete_deal(self, writer: Writer, a: int, b: int, _: int) -> None:
        order = ("sales_order", "purchase_order")[a % 2]
        writer.run(
            f"DO $$ DECLARE k int := {self._pick(order, b)}; BEGIN "
            f"DELETE FROM payment USING transaction AS t WHERE t.transaction_id = payment.transaction_id "
            f"AND t.{order}_id = k; DELETE FROM transaction WHERE {order}_id = k; "
            f"DELETE FROM {order} WHERE {order}_id = k; END $$"
        )

    def _bury(self, writer: Writer, a: int, b: int, _: int) -> None:
        """Delete a row, to be inserted again in another transaction."""
        table = ("payment", "design", "currency")[a % 3]
        rows = writer.run(
            f"DELETE FROM {table} WHERE {COLUMNS[table][0]} = {self._pick(table, b)} RETURNING to_jsonb({table})::text"
        )
        self._graveyard += [(table, str(row[0])) for row in rows]

    def _revive(self, writer: Writer, a: int, _b: int, _c: int) -> None:
        if self._graveyard:
            table, row = self._graveyard[a % len(self._graveyard)]
            literal = sql.Literal(row).as_string()
            writer.run(f"INSERT INTO {table} SELECT * FROM jsonb_populate_record(NULL::{table}, {literal})")

    def _delete_and_insert(self, writer: Writer, a: int, b: int, c: int) -> None:
        table = ("payment", "design", "currency", "sales_order")[a % 4]
        key = COLUMNS[table][0]
        changed = "r.last_updated := r.last_updated + interval '1 second'; " if c % 2 else ""
        writer.run(
            f"DO $$ DECLARE r {table}; BEGIN DELETE FROM {table} WHERE {key} = {self._pick(table, b)} RETURNING * "
            f"INTO r; IF FOUND THEN {changed}INSERT INTO {table} SELECT r.*; END IF; END $$"
        )

    def _change_key(self, writer: Writer, a: int, b: int, c: int) -> None:
        table = _TABLES[a % len(_TABLES)]
        key = COLUMNS[table][0]
        self._set(writer, table, f"{key} = CASE WHEN {key} > 5000 THEN {key} - 5000 ELSE {key} + 5000 + {c % 2} END", b)

    def _change_day(self, writer: Writer, a: int, b: int, c: int) -> None:
        table = BY_DAY[a % len(BY_DAY)]
        days = [self._day(n) for n in range(len(OFFSETS))] + [
            str(self._first_day - timedelta(days=1)),
            "2999-01-01",
            "infinity",
        ]
        times = ("09:10:11.123", "00:00:00", "23:59:59.999")
        day = days[c % len(days)]
        self._set(writer, table, f"created_at = '{day if day == 'infinity' else f'{day} {times[b % 3]}'}'", b)

    def new_key(self) -> int:
        """A key that no row has."""
        return next(self._keys)

    def traveller(self, key: int, number: int) -> str:
        """A purchase order, which nothing refers to, unless it is there."""
        stamp = f"'{self._day(number)} 09:00'"
        staff, firm, money, place = (self._pick(table, 0) for table in ("staff", "counterparty", "currency", "address"))
        return (
            f"INSERT INTO purchase_order VALUES ({key}, {stamp}, {stamp}, {staff}, {firm}, 'FAR', 1, 3.10, {money}, "
            f"'2024-08-24', '2024-08-23', {place}) ON CONFLICT DO NOTHING"
        )

    def travel(self, key: int, station: str, number: int) -> str:
        """What happens to the purchase order next: it moves, turns bad, is mended, is gone, is there again."""
        assignments = {
            "day": f"created_at = '{self._day(number)} 09:00'",
            "infinity": "created_at = 'infinity'",
            "bad": "agreed_payment_date = 'never'",
            "mended": "agreed_payment_date = '2024-08-25'",
        }
        if station in assignments:
            return f"UPDATE purchase_order SET {assignments[station]} WHERE purchase_order_id = {key}"
        if station == "inserted":
            return self.traveller(key, number)
        return f"DELETE FROM purchase_order WHERE purchase_order_id = {key}"

    def _copy(self, writer: Writer, a: int, b: int, _: int) -> None:
        stamp = f"{self._day(a)} 07:00:00"
        rows = [(next(self._keys), stamp, "Bulk", "/", f"{n}.json", stamp) for n in range(1 + b % 4)]
        writer.copy("design", rows)

    def _exception_block(self, writer: Writer, a: int, b: int, c: int) -> None:
        """A block that undoes its own beginning, and goes on."""
        table, assignment = self._change(a, b, c)
        key, row = COLUMNS[table][0], self._pick(table, b)
        writer.run(
            f"DO $$ BEGIN BEGIN UPDATE {table} SET {assignment} WHERE {key} = {row}; "
            f"PERFORM 1 / ({c % 2}); EXCEPTION WHEN division_by_zero THEN "
            f"UPDATE {table} SET {COLUMNS[table][1]} = {COLUMNS[table][1]} WHERE {key} = {row}; END; END $$"
        )


KINDS: dict[str, Callable[[Scribe, Writer, int, int, int], None]] = {
    "update": Scribe._update,
    "silent update": Scribe._silent_update,
    "no-op update": Scribe._same,
    "deal": Scribe._deal,
    "deal now": Scribe._deal_now,
    "reference row": Scribe._reference,
    "delete": Scribe._delete,
    "delete deal": Scribe._delete_deal,
    "bury": Scribe._bury,
    "revive": Scribe._revive,
    "delete and insert": Scribe._delete_and_insert,
    "change key": Scribe._change_key,
    "change day": Scribe._change_day,
    "copy": Scribe._copy,
    "exception block": Scribe._exception_block,
}


class Writer:
    """One session. What the server refuses is undone, back to a savepoint where the session is a careful one."""

    def __init__(self, world: World | Followed, *, careful: bool) -> None:
        self._world, self._careful = world, careful
        self._connection = psycopg.connect(
            world.source_url, autocommit=True, options=_PATIENCE, application_name="writer"
        )

    @property
    def in_transaction(self) -> bool:
        return self._connection.info.transaction_status != TransactionStatus.IDLE

    def begin(self, isolation: str) -> None:
        if not self.in_transaction:
            self._connection.execute(f"BEGIN ISOLATION LEVEL {isolation}".encode())

    def end(self, how: str) -> None:
        if self.in_transaction:
            self.run(how, guard=False)
            if self.in_transaction:
                self._connection.execute("ROLLBACK")

    def savepoint(self, how: str) -> None:
        """``how`` is SAVEPOINT, RELEASE or ROLLBACK TO; without a savepoint to go to, the transaction is lost."""
        if self.in_transaction:
            self.run(f"{how} mark", guard=False)

    def run(self, statement: str, *, guard: bool = True) -> list[tuple[object, ...]]:
        """Run a statement, or several as one, and return its rows."""

        def execute() -> list[tuple[object, ...]]:
            cursor = self._connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

        return self._guarded(execute, guard)

    def copy(self, table: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Bulk load, as a migration would."""

        def execute() -> list[tuple[object, ...]]:
            with self._connection.cursor().copy(f"COPY {table} FROM STDIN".encode()) as copy:
                for row in rows:
                    copy.write_row(row)
            return []

        self._guarded(execute, True)

    def _guarded(self, execute: Callable[[], list[tuple[object, ...]]], guard: bool) -> list[tuple[object, ...]]:
        self._world.tally.statements += 1
        guarded = guard and self._careful and self.in_transaction
        try:
            if guarded:
                self._connection.execute("SAVEPOINT careful")
            rows = execute()
            if guarded:
                self._connection.execute("RELEASE careful")
        except psycopg.Error:
            self._world.tally.refused += 1
            if guarded:
                self._connection.execute("ROLLBACK TO careful")
            elif self.in_transaction:
                self._connection.execute("ROLLBACK")
            return []
        if not self.in_transaction:
            self._world.wrote()
        return rows

    def close(self) -> None:
        self._connection.close()
