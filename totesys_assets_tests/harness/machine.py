"""The state machine: hypothesis chooses who does what when, and makes what fails as short as it can.

Belongs here: rules and their order. No rule depends on what the server did, only on what was drawn: so the same draws
are the same series, and a shorter series is tried faithfully.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from totesys_assets.days import DayRange
from totesys_assets_tests.harness import drops, files, older
from totesys_assets_tests.harness.logged_world import BESIDE, BREAKS, KILLS, LoggedWorld
from totesys_assets_tests.harness.relations import ALTERATIONS, REWRITES, Administrator
from totesys_assets_tests.harness.source import COLUMNS
from totesys_assets_tests.harness.spilling import spill_at_once
from totesys_assets_tests.harness.world import LOSSES, Laboratory
from totesys_assets_tests.harness.writers import KINDS, OFFSETS, Scribe, Writer

WRITERS = 3
# One statement: its kind and what it is made of.
Statement = tuple[str, int, int, int]

_small = st.integers(0, 11)
_who = st.integers(0, WRITERS - 1)
_statement = st.tuples(st.sampled_from(sorted(KINDS)), _small, _small, _small)
_several = st.lists(_statement, min_size=2, max_size=6)
_offset = st.sampled_from(OFFSETS)
_TRANSACTION = (
    *("BEGIN READ COMMITTED", "BEGIN READ COMMITTED", "BEGIN REPEATABLE READ", "BEGIN SERIALIZABLE"),
    *("COMMIT", "COMMIT", "ROLLBACK", "SAVEPOINT", "ROLLBACK TO", "RELEASE"),
    *("PREPARE", "COMMIT PREPARED", "ROLLBACK PREPARED"),
)
# Through Dagster a refresh takes several times as long, and does the same.
_WAYS = (*["directly"] * 8, "full", "accepting deletions", "through Dagster")
_MISHAPS = (
    *("lose the ledger", "lose Dagster", "compact the lake", "change a structure", "a crowd comes", "a crowd goes"),
    *("TRUNCATE", "VACUUM FREEZE", "VACUUM FULL"),
    *(*ALTERATIONS, "swap with the shadow", "hostile settings", "hostile settings", "no settings"),
    *("copy the lake", "copy the lake", "set the lake back", "another lake"),
)
# Where a row may be, and what may become of it, between refreshes and backfills of single days.
_STATIONS = (*("day", "day", "day", "infinity", "bad"), *("mended", "deleted", "inserted"))
_journey = st.lists(
    st.tuples(
        st.sampled_from(_STATIONS),
        st.integers(0, len(OFFSETS) - 1),
        st.sampled_from(("nothing", "refresh", "backfill", "backfill of the last day")),
    ),
    min_size=3,
    max_size=6,
)
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
        self._administrator = Administrator(self.world.source_url, self.world.warehouse_url, self.world.wrote)
        # The last one is careless: whatever is refused it, it loses its whole transaction.
        self._writers = [Writer(self.world, careful=number < WRITERS - 1) for number in range(WRITERS)]

    # Writers

    def write(self, who: int, several: list[Statement]) -> None:
        """In the transaction that is open, or each in one of its own."""
        for statement in several:
            self._scribe.write(self._writers[who], *statement)

    @rule(who=_who, several=_several)
    def write_some(self, who: int, several: list[Statement]) -> None:
        self.write(who, several)

    @rule(who=_who, several=_several)
    def write_together(self, who: int, several: list[Statement]) -> None:
        self._writers[who].begin("READ COMMITTED")
        self.write(who, several)
        self._writers[who].end("COMMIT")

    @rule(who=_who, what=st.sampled_from(_TRANSACTION), number=_small)
    def transaction(self, who: int, what: str, number: int) -> None:
        """Transactions stay open over whatever comes, refreshes included, until somebody ends them."""
        if what.startswith("BEGIN "):
            self._writers[who].begin(what.removeprefix("BEGIN "))
        elif what in ("COMMIT", "ROLLBACK"):
            self._writers[who].end(what)
        elif what == "PREPARE":
            name = f"prepared_{len(self._prepared)}"
            self._prepared.append(name)
            self._writers[who].end(f"PREPARE TRANSACTION '{name}'")
        elif not what.endswith("PREPARED"):
            self._writers[who].savepoint(what)
        elif self._prepared:
            self._administrator.run(f"{what} '{self._prepared[number % len(self._prepared)]}'")

    # Refreshes

    # Each begins with some writing: hypothesis leaves out whole rules at random, and a refresh of nothing shows little.

    @rule(who=_who, several=_several, way=st.sampled_from(_WAYS))
    def refresh(self, who: int, several: list[Statement], way: str) -> None:
        self.write(who, several)
        if way == "full":
            self.world.full()
        else:
            # A failed table fails Dagster's whole run, which a refresh in this process tells table by table.
            usable = way == "through Dagster" and not self.world.drifted and not self._crowds
            self.world.refresh(through_dagster=usable, accept_deletions=way == "accepting deletions")

    @rule(after=_small, who=_who, several=_several, how=st.sampled_from(["commit", "overtake"]))
    def refresh_and_meanwhile(self, after: int, who: int, several: list[Statement], how: str) -> None:
        """While tables are being captured others commit, or a whole refresh that began later is done first."""

        def meanwhile() -> None:
            self.write(who, several)
            self._writers[who].end("COMMIT")
            if how == "overtake":
                self.world.refresh()

        self.laboratory.tally.faults += 1
        self.world.refresh(_once(after, meanwhile))

    @rule(who=_who, several=_several, how=st.sampled_from(REWRITES), table=st.sampled_from(("payment", "design")))
    def refresh_during_a_rewrite(self, who: int, several: list[Statement], how: str, table: str) -> None:
        """A table is being truncated or rewritten when a refresh begins, and is done while the refresh waits."""
        self.write(who, several)
        self.laboratory.tally.faults += 1
        self.happened(how)
        with self._administrator.under_way(how, table):
            self.world.refresh(accept_deletions=True)

    @rule(who=_who, several=_several)
    def refresh_while_others_spill(self, who: int, several: list[Statement]) -> None:
        """Other processes of the platform hold more than fits in their memory."""
        self.write(who, several)
        self.laboratory.tally.faults += 1
        spill_at_once(self.laboratory.folder / "spilled", self.world.refresh)

    @rule(journey=_journey)
    def wander(self, journey: list[tuple[str, int, str]]) -> None:
        """One row goes from day to day, turns bad, is mended and deleted, and is captured in any split of runs."""
        key, last = self._scribe.new_key(), self.world.days.first
        self._administrator.run(self._scribe.traveller(key, 0))
        for station, number, then in journey:
            day = self.world.days.first + timedelta(days=OFFSETS[number])
            self._administrator.run(self._scribe.travel(key, station, number))
            if then == "refresh":
                self.world.refresh()
            elif then != "nothing":
                chosen = last if then == "backfill of the last day" else day
                self.world.backfill(DayRange(chosen, chosen))
            last = day

    @rule(who=_who, several=_several, one=_offset, other=_offset)
    def backfill(self, who: int, several: list[Statement], one: int, other: int) -> None:
        self.write(who, several)
        first = self.world.days.first
        days = DayRange(first + timedelta(days=min(one, other)), first + timedelta(days=max(one, other)))
        self.world.backfill(days)

    # Mishaps and upkeep

    @rule(what=st.sampled_from(_MISHAPS), number=_small)
    def mishap(self, what: str, number: int) -> None:
        self.laboratory.tally.faults += 1
        self.happened(what)
        if what == "lose the ledger":
            self.world.lose_ledger()
        elif what == "lose Dagster":
            self.world.lose_dagster()
        elif what == "compact the lake":
            self.world.lake.compact()
        elif what == "change a structure":
            self._change_structure(list(COLUMNS)[number % len(COLUMNS)])
        elif what.startswith("a crowd"):
            self._crowd(what)
        elif what in ALTERATIONS:
            # A table that took another's place has the structure that it had, whatever became of the other's.
            if not self.world.drifted:
                self._administrator.alter(what, number)
        elif what == "copy the lake":
            self.world.keep_copy()
        elif what.endswith(("lake back", "another lake")):
            # A table that stopped is loaded from its lake when it goes on; until then it asks for it.
            if not self.world.drifted:
                self.world.change_lake(restored=what == "set the lake back")
        elif what.endswith("settings"):
            self._administrator.change_settings(number, hostile=what == "hostile settings")
        elif what == "TRUNCATE":
            self._administrator.run(f"TRUNCATE {('payment', 'payment, transaction')[number % 2]}")
        else:
            self._administrator.run(what)

    def happened(self, what: str) -> None:
        """A mishap begins."""

    @rule(lacking=st.sampled_from(sorted(older.LACKS)))
    def upgrade(self, lacking: str) -> None:
        self.laboratory.tally.faults += 1
        self.world.upgrade(lacking)

    def _change_structure(self, table: str) -> None:
        """A column comes, or goes again: a table that is not as the catalogue says stops, the others go on."""
        if table in self.world.drifted:
            self._mend_structure(table)
        elif self._administrator.run(f"ALTER TABLE {table} ADD COLUMN surprise int NOT NULL DEFAULT 1"):
            self.world.drifted.add(table)

    def _crowd(self, what: str) -> None:
        """Many rows come at once, or go at once, which is taken for an accident."""
        self._crowds += 1
        first = 10_000 + 100 * self._crowds
        if what == "a crowd comes":
            self._administrator.run(
                f"INSERT INTO payment_type SELECT n, 'SALES_REFUND', now(), now() "
                f"FROM generate_series({first}, {first + _CROWD}) AS n"
            )
        else:
            self._administrator.run("DELETE FROM payment_type WHERE payment_type_id >= 10000")

    def _mend_structure(self, table: str) -> None:
        if self._administrator.run(f"ALTER TABLE {table} DROP COLUMN surprise"):
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
            self._administrator.run(f"{'ROLLBACK' if number % 2 else 'COMMIT'} PREPARED '{name}'")
        for table in list(self.world.drifted):
            self._mend_structure(table)
        self.world.refresh(accept_deletions=True)
        self.world.check_everything()
        self.world.check_audit()


class InterleavingsWithLosses(Interleavings):
    """The same, with files and archives that are dropped, broken ones too, and parts of the lake that are removed.

    Of its own, so that a seed of the others goes on to do the same.
    """

    @rule(
        table=st.sampled_from(drops.TABLES),
        changes=st.lists(st.tuples(st.sampled_from(drops.CHANGES), _small, _small), min_size=1, max_size=5),
        then=st.sampled_from(("nothing", "refresh", "refresh", "backfill")),
    )
    def drop(self, table: str, changes: list[tuple[str, int, int]], then: str) -> None:
        """People drop files for a table, whatever is in them and whatever they are called."""
        self.laboratory.tally.faults += sum(what not in ("good", "removed") for what, _, _ in changes)
        for what, name, number in changes:
            self.world.drops.change(table, what, name, number)
        first = self.world.days.first
        if then == "refresh":
            self.world.refresh()
        elif then == "backfill":
            self.world.backfill(DayRange(first, first + timedelta(days=OFFSETS[changes[0][2] % len(OFFSETS)])))

    @rule(
        who=_who,
        several=_several,
        what=st.sampled_from(LOSSES),
        when=st.sampled_from(("between", "between", "capture", "build", "load")),
        after=st.integers(1, 4),
        others=st.sampled_from((0, 0, 2)),
    )
    def lose(self, who: int, several: list[Statement], what: str, when: str, after: int, others: int) -> None:
        """Somebody removes the lake, or a table of it, between two refreshes or under one."""
        self.write(who, several)
        # A table that stopped is loaded from its lake when it goes on; until then it asks for it.
        if not self.world.drifted:
            self.laboratory.tally.faults += 1
            self.world.lose(what, when, after, others)


class InterleavingsWithRanges(InterleavingsWithLosses):
    """The same, with refreshes by ranges of days, in any order and two at once, while others write.

    Of its own, so that a seed of the others goes on to do the same.
    """

    @rule(
        who=_who,
        before=_several,
        during=_several,
        rows=st.integers(1, 6),
        order=st.randoms(use_true_random=False),
        after=st.integers(0, 3),
    )
    def refresh_in_ranges(
        self, who: int, before: list[Statement], during: list[Statement], rows: int, order: Random, after: int
    ) -> None:
        self.write(who, before)
        self._writers[who].end("COMMIT")

        def meanwhile() -> None:
            self.write(who, during)
            self._writers[who].end("COMMIT")

        self.world.refresh_in_ranges(rows, order.shuffle, _once(after, meanwhile))


class InterleavingsWithFiles(InterleavingsWithLosses):
    """The same where the package has a source of files too: they are written between the refreshes.

    Of its own, so that a seed of the others goes on to do the same.
    """

    @rule(
        table=st.sampled_from((files.TARGET, files.RATE)),
        changes=st.lists(st.tuples(_offset, st.integers(0, 1), st.sampled_from(files.VALUES)), min_size=1, max_size=4),
        then=st.sampled_from(("nothing", "refresh", "backfill")),
    )
    def write_files(self, table: str, changes: list[tuple[int, int, str | None]], then: str) -> None:
        first = self.world.days.first
        for offset, currency, value in changes:
            assert self.world.files is not None
            self.world.files.write(table, offset, currency, value)
        if then == "refresh":
            self.world.refresh()
        elif then == "backfill":
            self.world.backfill(DayRange(first, first + timedelta(days=changes[0][0])))


class InterleavingsWithLog(InterleavingsWithLosses):
    """The same where the log is followed: it breaks too, and refreshes are killed.

    Of its own, so that a seed of the others goes on to do the same.
    """

    @rule(who=_who, several=_several, what=st.sampled_from(BREAKS), number=_small, again=st.sampled_from((True, False)))
    def break_log(self, who: int, several: list[Statement], what: str, number: int, again: bool) -> None:
        """Something happens to the log, and may be noticed at once or after others wrote more."""
        self.write(who, several)
        self.laboratory.tally.faults += 1
        self.logged.break_log(what, number)
        if again:
            self.world.refresh(accept_deletions=True)

    @rule(
        who=_who,
        several=_several,
        during=_several,
        where=st.sampled_from(sorted(KILLS)),
        call=st.integers(1, 4),
    )
    def kill(self, who: int, several: list[Statement], during: list[Statement], where: str, call: int) -> None:
        self.write(who, several)
        self._writers[who].end("COMMIT")

        def meanwhile() -> None:
            self.write(who, during)
            self._writers[who].end("COMMIT")

        self.laboratory.tally.faults += 1
        self.logged.kill(where, call, meanwhile)

    @rule(who=_who, several=_several, what=st.sampled_from(BESIDE), call=st.integers(1, 60))
    def audit_beside(self, who: int, several: list[Statement], what: str, call: int) -> None:
        """Others commit, and an audit is interrupted by another process: by the refresh that brings that in, say."""
        if self.world.drifted:  # a table that stopped is told by every audit
            return
        self.world.refresh(accept_deletions=True)
        self.write(who, several)
        self._writers[who].end("COMMIT")
        self.laboratory.tally.faults += 1
        self.logged.audit_beside(what, call)

    @rule(who=_who, several=_several, what=st.sampled_from(BESIDE[:-1]), call=st.integers(1, 4))
    def refresh_beside(self, who: int, several: list[Statement], what: str, call: int) -> None:
        self.write(who, several)
        self._writers[who].end("COMMIT")
        self.laboratory.tally.faults += 1
        self.logged.refresh_beside(what, call)

    def happened(self, what: str) -> None:
        if what not in ("lose Dagster", "compact the lake", "a crowd comes", "a crowd goes", "copy the lake"):
            self.logged.excuse()

    @property
    def logged(self) -> LoggedWorld:
        """The world, whose log is followed."""
        assert isinstance(self.world, LoggedWorld)
        return self.world


def _once(after: int, action: Callable[[], None]) -> Callable[[int], None]:
    """Something that happens after so many tables of a refresh were captured, once."""
    done: list[bool] = []

    def between(captured: int) -> None:
        if not done and captured > after:
            done.append(True)
            action()

    return between
