"""The state machine: hypothesis chooses who does what when, and makes what fails as short as it can.

Belongs here: rules and their order. No rule depends on what the server did, only on what was drawn: so the same draws
are the same series, and a shorter series is tried faithfully.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from totesys_assets.days import DayRange
from totesys_assets_tests.harness.source import COLUMNS
from totesys_assets_tests.harness.world import Laboratory
from totesys_assets_tests.harness.writers import KINDS, OFFSETS, Scribe, Writer

WRITERS = 3
# One statement: its kind and what it is made of.
Statement = tuple[str, int, int, int]

_small = st.integers(0, 11)
_who = st.integers(0, WRITERS - 1)
_statement = st.tuples(st.sampled_from(sorted(KINDS)), _small, _small, _small)
_several = st.lists(_statement, min_size=1, max_size=4)
_offset = st.sampled_from(OFFSETS)
# Through Dagster a refresh takes several times as long, and does the same.
_way = st.sampled_from(["directly"] * 11 + ["through Dagster"])
# More rows than the guard against mass deletions needs to take notice.
_CROWD = 24


class Interleavings(RuleBasedStateMachine):
    """Writers, refreshes and mishaps in a random order; subclassed with the laboratory to work in."""

    laboratory: Laboratory

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._writers: list[Writer] = []
        self._prepared: list[str] = []
        self._crowds = 0

    @initialize()
    def open_world(self) -> None:
        self.laboratory.tally.interleavings += 1
        self.world = self._stack.enter_context(self.laboratory.world())
        self._scribe = Scribe(self.world.days.first)
        # The last one is careless: whatever is refused it, it loses its whole transaction.
        self._writers = [Writer(self.world, careful=number < WRITERS - 1) for number in range(WRITERS)]

    # Writers

    @rule(who=_who, several=_several)
    def write(self, who: int, several: list[Statement]) -> None:
        """In the transaction that is open, or each in one of its own."""
        for statement in several:
            self._scribe.write(self._writers[who], *statement)

    @rule(who=_who, several=_several)
    def write_together(self, who: int, several: list[Statement]) -> None:
        self._writers[who].begin("READ COMMITTED")
        for statement in several:
            self._scribe.write(self._writers[who], *statement)
        self._writers[who].end("COMMIT")

    @rule(who=_who, isolation=st.sampled_from(["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]))
    def begin(self, who: int, isolation: str) -> None:
        self._writers[who].begin(isolation)

    @rule(who=_who, how=st.sampled_from(["SAVEPOINT", "RELEASE", "ROLLBACK TO"]))
    def savepoint(self, who: int, how: str) -> None:
        self._writers[who].savepoint(how)

    @rule(who=_who, how=st.sampled_from(["COMMIT", "COMMIT", "ROLLBACK", "PREPARE"]))
    def end(self, who: int, how: str) -> None:
        if how != "PREPARE":
            self._writers[who].end(how)
            return
        name = f"prepared_{len(self._prepared)}"
        self._prepared.append(name)
        self._writers[who].end(f"PREPARE TRANSACTION '{name}'")

    @rule(number=_small, how=st.sampled_from(["COMMIT", "ROLLBACK"]))
    def resolve(self, number: int, how: str) -> None:
        if self._prepared:
            self._admin(f"{how} PREPARED '{self._prepared[number % len(self._prepared)]}'")

    # Refreshes

    @rule(way=_way)
    def refresh(self, way: str) -> None:
        # A failed table fails Dagster's whole run, which a refresh in this process tells table by table.
        usable = not self.world.drifted and not self._crowds
        self.world.refresh(through_dagster=usable and way == "through Dagster")

    @rule(after=_small, who=_who, several=_several)
    def refresh_while_others_commit(self, after: int, who: int, several: list[Statement]) -> None:
        def commit() -> None:
            for statement in several:
                self._scribe.write(self._writers[who], *statement)
            self._writers[who].end("COMMIT")

        self.laboratory.tally.faults += 1
        self.world.refresh(_once(after, commit))

    @rule(after=_small, who=_who, statement=_statement)
    def two_refreshes_at_once(self, after: int, who: int, statement: Statement) -> None:
        def overtake() -> None:
            self._scribe.write(self._writers[who], *statement)
            self._writers[who].end("COMMIT")
            self.world.refresh()

        self.laboratory.tally.faults += 1
        self.world.refresh(_once(after, overtake))

    @rule(one=_offset, other=_offset)
    def backfill(self, one: int, other: int) -> None:
        first = self.world.days.first
        self.world.backfill(DayRange(first + timedelta(days=min(one, other)), first + timedelta(days=max(one, other))))

    @rule(how=st.sampled_from(["full", "accept deletions"]))
    def refresh_otherwise(self, how: str) -> None:
        if how == "full":
            self.world.full()
        else:
            self.world.refresh(accept_deletions=True)

    # Mishaps and upkeep

    @rule(
        what=st.sampled_from(
            ["lose ledger", "compact", "lose Dagster", "VACUUM FREEZE", "VACUUM FULL", "ANALYZE", "CHECKPOINT"]
        )
    )
    def mishap(self, what: str) -> None:
        self.laboratory.tally.faults += 1
        if what == "lose ledger":
            self.world.lose_ledger()
        elif what == "compact":
            self.world.lake.compact()
        elif what == "lose Dagster":
            self.world.lose_dagster()
        else:
            self._admin(what)

    @rule(number=_small)
    def change_structure(self, number: int) -> None:
        """A column comes, or goes again: a table that is not as the catalogue says stops, the others go on."""
        table = list(COLUMNS)[number % len(COLUMNS)]
        self.laboratory.tally.faults += 1
        if table in self.world.drifted:
            self._mend_structure(table)
        elif self._admin(f"ALTER TABLE {table} ADD COLUMN surprise int DEFAULT 1"):
            self.world.drifted.add(table)

    @rule(what=st.sampled_from(["come", "go", "truncate"]), number=_small)
    def crowd(self, what: str, number: int) -> None:
        """Many rows come at once, and go at once, which is taken for an accident."""
        self._crowds += 1
        if what == "come":
            first = 10_000 + 100 * self._crowds
            self._admin(
                f"INSERT INTO payment_type SELECT n, 'SALES_REFUND', now(), now() "
                f"FROM generate_series({first}, {first + _CROWD}) AS n"
            )
        elif what == "go":
            self._admin("DELETE FROM payment_type WHERE payment_type_id >= 10000")
        else:
            self._admin(f"TRUNCATE {('payment', 'payment, transaction')[number % 2]}")

    def _admin(self, statement: str) -> bool:
        """A statement of a session of its own; False when something held it up."""
        try:
            with psycopg.connect(self.world.source_url, autocommit=True, options="-c lock_timeout=60") as connection:
                connection.execute(statement.encode())
        except psycopg.Error:
            return False
        return True

    def _mend_structure(self, table: str) -> None:
        if self._admin(f"ALTER TABLE {table} DROP COLUMN surprise"):
            self.world.drifted.remove(table)

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None and self._writers:
                self._quiesce()
        finally:
            for writer in self._writers:
                writer.close()
            self._stack.close()

    def _quiesce(self) -> None:
        """Everybody comes to an end; then the warehouse is what the source is."""
        for number, writer in enumerate(self._writers):
            writer.end("ROLLBACK" if number == 0 else "COMMIT")
        for number, name in enumerate(self._prepared):
            self._admin(f"{'ROLLBACK' if number % 2 else 'COMMIT'} PREPARED '{name}'")
        for table in list(self.world.drifted):
            self._mend_structure(table)
        self.world.refresh(accept_deletions=True)
        self.world.check_everything()


def _once(after: int, action: Callable[[], None]) -> Callable[[int], None]:
    """Something that happens after so many tables of a refresh were captured, once."""
    done: list[bool] = []

    def between(captured: int) -> None:
        if not done and captured > after:
            done.append(True)
            action()

    return between
