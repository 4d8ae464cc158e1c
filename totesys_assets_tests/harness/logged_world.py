"""Worlds whose log is followed: the model sees every commit, and what each capture must have taken of them.

Belongs here: what the log adds to a world. A capture that follows the log brings every version that was committed since
the one before, on all days; one that compares brings the last of them, on the days that it was asked for. Which of
the two a capture did is watched; that it compared must have a reason: something happened to the world.
"""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import psycopg

from totesys_assets import engine
from totesys_assets.capture import comparison, difference, following, journal, ledger, logged
from totesys_assets.capture.ledger import Ledger
from totesys_assets.capture.logged import Logged
from totesys_assets.capture.pruning import prune
from totesys_assets.catalogue.catalogue import COMMIT_LSN, RECORDED_AT, catalogue
from totesys_assets.days import partition_range
from totesys_assets.errors import PlatformError
from totesys_assets.lake.marks import mark
from totesys_assets.lake.read import register
from totesys_assets.lake.tables import DEAD_LETTER, INGESTION, Lake
from totesys_assets.settings import Settings
from totesys_assets.source.totesys import Totesys
from totesys_assets.source.totesys import log as log_module
from totesys_assets.source.totesys.log import Log
from totesys_assets.staleness.decide import Request
from totesys_assets.staleness.look import Look
from totesys_assets_tests.harness.model import Place, Version
from totesys_assets_tests.harness.servers import LOGICAL
from totesys_assets_tests.harness.source import COLUMNS, FACTS, Observer, State, read_by
from totesys_assets_tests.harness.sql_files import apply
from totesys_assets_tests.harness.world import Laboratory, Run, World

# Where a refresh in this process is killed: before this call of this name in the module or class.
KILLS: dict[str, tuple[Any, str]] = {
    "before the journal is written": (journal.Journal, "_commit"),
    "before the log is forgotten": (Log, "forget"),
    "before the hidden are looked for": (following, "hidden_transactions"),
    "before versions are written": (logged, "append"),
    "before dead letters are written": (Logged, "_keep_letters"),
    "before compared versions are written": (comparison, "append"),
    "before it is noted": (ledger.Ledger, "append"),
}
# What happens to a log, in SQL.
_BREAKS = {
    "somebody drops the slot": "SELECT pg_drop_replication_slot('{slot}')",
    "somebody reads the slot": "SELECT count(*) FROM pg_logical_slot_get_binary_changes('{slot}', NULL, NULL, "
    "'proto_version', '1', 'publication_names', 'totesys_log')",
    "somebody edits the publication": "ALTER PUBLICATION totesys_log DROP TABLE {table}; "
    "ALTER PUBLICATION totesys_log ADD TABLE {table}",
    "somebody takes a table out": "ALTER PUBLICATION totesys_log DROP TABLE {table}",
    "somebody puts the tables back": "ALTER PUBLICATION totesys_log SET TABLE {tables}",
}
BREAKS = (*_BREAKS, "it is switched off", "the journal is lost")
# What another process does in the middle of an audit, or of a refresh.
BESIDE = ("another reads the log", "the journal is pruned", "a refresh")


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Followings:
    """How many captures followed the log, and how many compared."""

    followed: int = 0
    compared: int = 0


class LoggedLaboratory(Laboratory):
    """A laboratory whose server offers its log."""

    settings = LOGICAL

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.followings = Followings()

    def _prepare(self, url: str) -> None:
        apply("source_reader.sql", url)
        apply("source_log.sql", url)
        with psycopg.connect(url) as connection:
            connection.execute("ALTER TABLE design ALTER file_location SET STORAGE EXTERNAL")

    def _world(self) -> LoggedWorld:
        urls = self._server.url("source"), self._server.url("warehouse")
        world = LoggedWorld(self.folder / "lake", *urls, partition_range(self._first_day), self.tally)
        world.followings = self.followings
        return world

    @contextmanager
    def world(self) -> Iterator[World]:
        """A world in which the first trade was refreshed, and the log is followed from then on."""
        with super().world() as world:
            assert isinstance(world, LoggedWorld)
            world.follow()
            yield world

    def _clean(self) -> None:
        with psycopg.connect(self._server.url("postgres"), autocommit=True) as connection:
            for name in ("source", "warehouse"):
                connection.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", [name]
                )
            connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        super()._clean()


class LoggedWorld(World):
    """A world whose log is followed."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.log = Log(self.source_url, wanted=False)
        self.followings = Followings()
        self._observer: Observer | None = None
        self._states: list[State] = []  # what was committed, one commit after another
        self._at: dict[str, int] = {}  # of each table, up to which of them it was taken
        self._seen_by_look = 0
        # Versions that the lake has and the warehouse not yet, for nobody asked for their day.
        self._waiting: defaultdict[str, list[tuple[Place, Version, int]]] = defaultdict(list)
        # Tables whose versions somebody removed from the lake during the run.
        self._stolen: set[str] = set()
        self._how: dict[str, tuple[Logged | None, bool]] = {}
        self._excused: set[str] = set(COLUMNS)
        self._meanwhile: Callable[[], None] | None = None
        self._stack = ExitStack()

    def follow(self) -> None:
        """Follow the log from now on."""
        self.log.wanted = True

        def watched(*arguments: Any) -> Logged | None:
            found = logged.follow(*arguments)
            self._how[arguments[2].name] = found, arguments[4] is not None
            return found

        for patch in (
            mock.patch.object(difference, "follow", watched),
            mock.patch.object(following, "_AGAIN_SECONDS", 0),
            mock.patch.object(log_module, "_BEGIN_TIMEOUT", "300ms"),
        ):
            self._stack.enter_context(patch)
        self.refresh()

    def close(self) -> None:
        """Give up connections."""
        self._stack.close()
        self.log.close()
        if self._observer is not None:
            self._observer.close()
            self._observer = None
        super().close()

    def totesys(self, taken: Callable[[], None]) -> Totesys:
        """ToteSys as the platform reaches it, with its log."""
        made = super().totesys(taken)
        made.log = self.log
        return made

    def _settings(self) -> Settings:
        found = super()._settings()
        return replace(found, follows_log=self.log.wanted)

    # What was committed

    def read(self) -> State:
        """What the source shows now: the newest of the states that were committed."""
        if self._observer is None:
            self._observer = Observer(self.source_url)
        state = read_by(self._observer)
        if not self._states or self._states[-1] != state:
            self._states.append(state)
        return self._states[-1]

    def wrote(self) -> None:
        """Look at what was committed."""
        self.read()

    def excuse(self) -> None:
        """Something happened for which tables may be compared, once."""
        self._excused = set(COLUMNS)

    # What a refresh must take

    def look(self, range_rows: int = 0) -> tuple[Look, State]:
        """What there is to do, and what was committed at that moment."""
        before = self._noted()
        following.begin(self.lake, self.log)
        found, state = super().look(range_rows)
        self._notice(before, self._place(state))
        return found, state

    def _noted(self) -> dict[str, str]:
        return {name: entry.state for name, entry in Ledger(self.lake).newest(["log"]).get("log", {}).items()}

    def _notice(self, before: dict[str, str], at: int) -> None:
        """Tables that are followed from where a look found them as they are."""
        for name, state in self._noted().items():
            if name and before.get(name) != state:
                self._at[name] = at

    def _place(self, state: State) -> int:
        return next(number for number in reversed(range(len(self._states))) if self._states[number] is state)

    def _expect(self, table: str, request: Request, state: State) -> Counter[str]:
        """What a capture must add."""
        found, is_reached = self._how.pop(table, (None, False))
        at, days = self._place(state), request.days
        if found is not None:
            states = self._states[self._at.get(table, at) + 1 : at + 1] or [state]
            days = None
            self._excused.discard(table)
            self.followings.followed += 1
        else:
            assert table in self._excused, f"{table} was compared, though its log could be followed"
            states = [state]
            days = None if is_reached and request.changes_only else days
            self.followings.compared += 1
        if found is not None or days is None or days == self.days:
            self._at[table] = max(at, self._at.get(table, 0))
        added: Counter[str] = Counter()
        for each in states:
            counts = {place: len(versions) for place, versions in self.model.tables[table].versions.items()}
            added += self.model.capture(table, days, each)
            self.loaded._moment += 1
            for place, versions in self.model.tables[table].versions.items():
                self._waiting[table] += [
                    (place, version, self.loaded._moment) for version in versions[counts.get(place, 0) :]
                ]
        return added

    def run(self, request: Request, *arguments: Any, **named: Any) -> None:
        """One run: the warehouse then has all versions of the days that were asked for."""
        super().run(request, *arguments, **named)
        if request.adopt_lake:  # of a table whose lake is the same, each version is loaded all the same
            self._load_what_is_there(more=2)
        for fact, mapping in FACTS.items():
            days, table = request.days, mapping.source
            is_asked = f"warehouse/{fact}" in request.assets and table not in self._behind and not request.adopt_lake
            if is_asked and table not in self._stolen:
                keys = None if days is None else set(days.keys)
                self._load_expected(table, keys)

    def _load_expected(self, table: str, days: set[str] | None, places: Collection[Place] = ()) -> None:
        """The warehouse has the versions that waited for it, of some days (None: all) and places."""
        waiting, self._waiting[table] = self._waiting[table], []
        for place, version, moment in waiting:
            if days is None or place[1] in days or place in places:
                self.loaded.add(table, place, version, moment)
            else:
                self._waiting[table].append((place, version, moment))

    def _load_what_is_there(self, more: int) -> None:
        """The warehouse has the versions that waited for it, of places of which it has so many ``more`` records."""
        for fact, mapping in FACTS.items():
            there = Counter((str(key), str(day)) for _, _, _, key, day, *_ in self._records(fact))
            held = self.loaded.tables[mapping.source].versions
            places = {place for place, count in there.items() if count >= len(held.get(place, [])) + more}
            self._load_expected(mapping.source, set(), places)

    def _adopt(self, left: Any, *, unnoticed: bool, others: int = 0) -> None:
        self.excuse()
        super()._adopt(left, unnoticed=unnoticed, others=others)
        self.excuse()  # the load noted in tables of the lake that it has adopted them
        self._waiting.clear()
        self._stolen.clear()

    def lose_ledger(self) -> None:
        """Throw away the notes of what was done."""
        self.excuse()
        super().lose_ledger()

    def _remove(self, what: str) -> None:
        self.excuse()
        # What only the lake had, and the warehouse not yet, is gone with it.
        self._stolen |= {table for table in COLUMNS if what in ("", f"{INGESTION}/{table}")}
        super()._remove(what)

    def upgrade(self, lacking: str) -> None:
        """The same, with what the other process notes."""
        self.refresh()
        before = self._noted()
        super().upgrade(lacking)
        self._notice(before, len(self._states) - 1)

    # Mishaps of the log

    def break_log(self, what: str, number: int) -> None:
        """One of BREAKS."""
        self.excuse()
        if what == "it is switched off":
            self.log.wanted = not self.log.wanted
        elif what == "the journal is lost":
            shutil.rmtree(self.lake.location("journal"), ignore_errors=True)
        else:
            names = list(COLUMNS)
            statement = _BREAKS[what].format(
                slot=self.log.slot, table=names[number % len(names)], tables=", ".join(names)
            )
            with suppress(psycopg.Error), Observer(self.source_url) as session:
                session.run(statement)

    def kill(self, where: str, call: int, meanwhile: Callable[[], None]) -> None:
        """A refresh that is killed at one of KILLS; then another one, which completes it.

        ``meanwhile`` happens between the first one's snapshot and its reading of the log.
        """
        holder, name = KILLS[where]
        original, calls, stretch = getattr(holder, name), [0], self._stretch()
        self._how.clear()
        self._meanwhile = meanwhile

        def counted(*arguments: Any, **named: Any) -> Any:
            calls[0] += 1
            if calls[0] == call:
                raise Killed
            return original(*arguments, **named)

        with suppress(Killed), mock.patch.object(holder, name, counted):
            self.refresh()
        self._meanwhile = None
        # What compared and was killed before it noted so compares again; what followed goes on, but where dead letters
        # may not have followed, or are ahead.
        self._excused |= {table for table, (found, _) in self._how.items() if found is None}
        self._excused |= {table for table in COLUMNS if self._has_letters(table)}
        if not stretch or self._stretch() != stretch:
            self.excuse()
        self.counts_versions = False
        try:
            self.refresh()
        finally:
            self.counts_versions = True

    def _has_letters(self, table: str) -> bool:
        held, letters = self.lake.find(INGESTION, table), self.lake.find(DEAD_LETTER)
        if held is not None and mark(held, following._LETTERS) is not None:
            return True
        return letters is not None and mark(letters, f"{following._STRETCH}:{table}") is not None

    def _stretch(self) -> int:
        return self._journal(self.lake).stretch

    def _taken(self, run: Run) -> None:
        super()._taken(run)
        if self._meanwhile is not None:
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()

    def audit_beside(self, what: str, call: int) -> None:
        """An audit, and one of BESIDE as soon as it has asked for a table of the lake so many times."""
        with self._interrupted(Lake, "find", what, call):
            self.check_audit()

    def refresh_beside(self, what: str, call: int) -> None:
        """A refresh, and one of BESIDE as soon as it has asked so many times how far the log goes."""
        with self._interrupted(Log, "state", what, call):
            self.refresh(accept_deletions=True)

    @contextmanager
    def _interrupted(self, holder: type, name: str, what: str, call: int) -> Iterator[None]:
        original, calls = getattr(holder, name), [0]

        def counted(*arguments: Any) -> Any:
            found = original(*arguments)
            calls[0] += 1
            if calls[0] == call:
                self._happen(what)
            return found

        with mock.patch.object(holder, name, counted):
            yield

    def _happen(self, what: str) -> None:
        """What another process does, of BESIDE."""
        if what == "a refresh":
            self.refresh(accept_deletions=True)
        elif what == "the journal is pruned":
            self.excuse()  # what was not taken from it must be compared
            prune(Lake(self.lake.uri), self.days.last + timedelta(days=20))
        else:
            with Log(self.source_url) as its_own, suppress(PlatformError):  # the log is broken
                self._journal(Lake(self.lake.uri)).drain(its_own)

    def _journal(self, lake: Lake) -> journal.Journal:
        return journal.Journal(lake, self.log.schema, self.log.tables)

    # Comparing with the model

    def check(self) -> None:
        """The same, and nothing that a comparison found was missed by the log."""
        self._load_what_is_there(more=1)  # versions of days that nobody asked for may be loaded too
        super().check()
        missed = {
            (asset, partition): total.missed
            for asset, each in Ledger(self.lake).totals().items()
            for partition, total in each.items()
            if total.missed
        }
        assert not missed, f"versions that the log did not tell of: {missed}"

    def check_everything(self, *, again: bool = True) -> None:
        """The same, and no version that was committed is left in the log."""
        super().check_everything(again=again)
        for table in COLUMNS:
            rest, left = deepcopy(self.model), 0
            for state in self._states[self._at.get(table, len(self._states)) + 1 :]:
                left += rest.capture(table, None, state).total()
            assert not left or table in self._excused, f"{left} versions of {table} that no refresh took from the log"
            self._check_order(table)
        assert not any(self._waiting[table] for table in [each.source for each in FACTS.values()]), (
            "versions that no refresh loaded"
        )

    def _check_order(self, table: str) -> None:
        """Versions from the log are in the order of the log, each transaction at one moment of its own."""
        with engine.session() as connection:
            held = register(connection, "held", self.lake.existing(catalogue().source[table]))
            rows = connection.execute(
                f"SELECT DISTINCT {RECORDED_AT}, {COMMIT_LSN} FROM {held} WHERE {COMMIT_LSN} IS NOT NULL "
                f"ORDER BY {RECORDED_AT}, {COMMIT_LSN}"
            ).fetchall()
        positions = [position for _, position in rows]
        assert positions == sorted(set(positions)), f"versions of {table} are not in the order of the log"
        assert len({moment for moment, _ in rows}) == len(rows), f"two transactions of {table} at one moment"
