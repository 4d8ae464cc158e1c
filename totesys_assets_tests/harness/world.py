"""A world per example: ToteSys, lake and warehouse, refreshed as the platform does it, with the model beside them.

Belongs here: making worlds cheaply, refreshing them, and comparing what came out with the model. Does not belong here:
what writers do (writers.py), and in which order things happen (machine.py).
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from unittest import mock

import dagster as dg
import duckdb
import psycopg

from totesys_assets import engine
from totesys_assets.audit.audit import audit, checks
from totesys_assets.audit.findings import Finding
from totesys_assets.automation.refresh import execute
from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.capture.difference import Captured, capture
from totesys_assets.capture.ledger import Ledger
from totesys_assets.capture.lost_ledger import ingestion_name, write_off
from totesys_assets.catalogue.catalogue import Table, catalogue, ddl
from totesys_assets.catalogue.queries import query_of
from totesys_assets.days import WHOLE, DayRange, partition_range
from totesys_assets.definitions import build_definitions
from totesys_assets.errors import LakeChanged, MassDeletion, PlatformError, SchemaDrift
from totesys_assets.lake.read import register
from totesys_assets.lake.tables import INGESTION, Lake
from totesys_assets.load.load import load
from totesys_assets.load.one_pass import Along, OnePass
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets.names import TOTESYS
from totesys_assets.platform import Platform, other_sources
from totesys_assets.settings import Settings
from totesys_assets.source.interface import Source, SourceSnapshot
from totesys_assets.source.shared_snapshot import SharedSnapshot, SharedSnapshots
from totesys_assets.source.totesys import Totesys, looks
from totesys_assets.source.totesys.snapshot import Snapshot
from totesys_assets.sql_text import quoted
from totesys_assets.staleness.decide import Request, everything, partitioned
from totesys_assets.staleness.look import Look, look
from totesys_assets.transform.build import build
from totesys_assets.transform.engines.in_duckdb import InDuckDb
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.harness import RATES, drops, files, marts, older
from totesys_assets_tests.harness.drops import Drops
from totesys_assets_tests.harness.files import Files
from totesys_assets_tests.harness.model import Model, Place, TableModel
from totesys_assets_tests.harness.relations import Administrator
from totesys_assets_tests.harness.servers import QUICK
from totesys_assets_tests.harness.source import (
    BY_DAY,
    COLUMNS,
    DIMENSIONS,
    FACTS,
    REFERENCES,
    Mapped,
    Observer,
    State,
    is_dead,
    read,
)

TRADE = Path(__file__).parents[1] / "trade.sql"
# Days enough for ranges far apart, which become ranges of their own, and few enough for Dagster's bookkeeping.
DAYS = 40
# The same database number every time: it is part of the source's identity, and to a lake copied from the template
# every world must look like the one in which the template was made.
_SOURCE_NUMBER = 60_000
_SETTINGS = {**QUICK, "autovacuum": "off"}  # it takes locks when it likes, and the same seed must replay
# What a run captures, in the order in which Dagster does it: the small tables first.
_ORDER = [*(table for table in COLUMNS if table not in BY_DAY), *BY_DAY]


def trade(first_day: date) -> str:
    """The hand-made trade, brought to the days that a world has."""
    text = TRADE.read_text(encoding="utf-8")
    for offset, day in enumerate(("2024-08-19", "2024-08-20", "2024-08-21")):
        text = text.replace(f"{day} ", f"{first_day + timedelta(days=offset)} ")
    return text


@dataclass
class Tally:
    """What was done, and what went wrong."""

    interleavings: int = 0
    refreshes: int = 0
    runs: int = 0
    dagster_runs: int = 0
    statements: int = 0
    refused: int = 0
    faults: int = 0
    versions: int = 0
    lost: int = 0
    doubled: int = 0

    def add(self, other: Tally) -> None:
        """Count what was done elsewhere too."""
        for name, count in asdict(other).items():
            setattr(self, name, getattr(self, name) + count)

    def counts(self) -> dict[str, int]:
        """Every count by its name in words."""
        named = {
            "runs": "runs of the platform",
            "dagster_runs": "of these through Dagster",
            "faults": "faults injected",
        }
        named |= {"refused": "statements refused", "versions": "versions captured"}
        named |= {"lost": "rows lost", "doubled": "rows doubled"}
        return {named.get(name, name): count for name, count in asdict(self).items()}


class Laboratory:
    """A server, and the templates of which worlds are made."""

    settings: Mapping[str, str] = _SETTINGS

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tally = Tally()
        self._server = EmbeddedServer(folder / "server", self.settings)

    @contextmanager
    def open(self) -> Iterator[Laboratory]:
        """The laboratory with its server up and its templates made."""
        self._server.start()
        try:
            self._make_templates()
            yield self
        finally:
            self._server.stop()

    def admin(self, statement: str) -> None:
        """Run a statement outside of the worlds' databases."""
        with psycopg.connect(self._server.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _make_templates(self) -> None:
        self._first_day = datetime.now(UTC).date() - timedelta(days=DAYS)
        self.admin(f"CREATE DATABASE source OID {_SOURCE_NUMBER}")
        self.admin("CREATE DATABASE warehouse")
        with psycopg.connect(self._server.url("source")) as connection:
            connection.execute(ddl("totesys.sql").encode())
            connection.execute(trade(self._first_day).encode())
        self._prepare(self._server.url("source"))
        # What may take the place of a table, or become a part of it: its rows bear older ids than any look.
        administrator = Administrator(self._server.url("source"), self._server.url("warehouse"))
        for number, what in enumerate(("fill a shadow", "fill a shadow", "make a child")):
            assert administrator.alter(what, number)
        world = self._world()
        if world.files is not None:
            world.files.write(files.TARGET, 0, 0, files.VALUES[0])
            world.files.write(files.RATE, 0, 0, files.VALUES[0])
        world.refresh()
        world.close()
        self._first_model, self._first_files = world.model, world.files
        shutil.copytree(self.folder / "lake", self.folder / "lake_template")
        for name in ("source", "warehouse"):
            self.admin(f"CREATE DATABASE {name}_template TEMPLATE {name}")

    def _prepare(self, url: str) -> None:
        """Whatever else ToteSys needs."""

    def _world(self) -> World:
        urls = self._server.url("source"), self._server.url("warehouse")
        return World(self.folder / "lake", *urls, partition_range(self._first_day), self.tally)

    @contextmanager
    def world(self) -> Iterator[World]:
        """A world in which the first trade was refreshed, and nothing else happened."""
        self._clean()
        self.admin(f"CREATE DATABASE source TEMPLATE source_template OID {_SOURCE_NUMBER}")
        self.admin("CREATE DATABASE warehouse TEMPLATE warehouse_template")
        shutil.copytree(self.folder / "lake_template", self.folder / "lake")
        world = self._world()
        world.start_from(self._first_model, self._first_files)
        try:
            yield world
        finally:
            world.close()

    def _clean(self) -> None:
        with psycopg.connect(self._server.url("postgres"), autocommit=True) as connection:
            left = connection.execute("SELECT gid, database FROM pg_prepared_xacts").fetchall()
        for gid, database in left:
            with psycopg.connect(self._server.url(str(database)), autocommit=True) as connection:
                connection.execute(f"ROLLBACK PREPARED '{gid}'".encode())
        for name in ("source", "warehouse", "other_source"):
            self.admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        for folder in ("lake", "lake_backup", "lake_files", "home"):
            shutil.rmtree(self.folder / folder, ignore_errors=True)


@dataclass
class Run:
    """One run of the platform: the state that its shared snapshot must show, and what happens in between."""

    between: Callable[[int], None]
    state: State | None = None
    number: int = 0
    broken: bool = False
    captured: int = 0
    failed: set[str] = field(default_factory=set)
    before: Callable[[str], None] = lambda _: None  # before the builds, and before the loads
    may_fail: bool = False  # something was taken from it
    one_pass: OnePass | None = None

    def onward(self, table: str, request: Request) -> Along | None:
        """What takes the first versions of a source table along into those star tables that the request is about."""
        assert self.one_pass is not None
        asked = {name for name in catalogue().star if {f"star/{name}", f"warehouse/{name}"} <= {*request.assets}}
        return self.one_pass.onward(catalogue().source[table], asked)


# What may be removed of a lake; all of it is the first. What is in the ingestion zone cannot be made again.
LOSSES = (
    *("", "ingestion/payment", "ingestion/design", "ingestion/sales_order", "ingestion/exchange_rate"),
    *("processed", "processed/fact_payment", "processed/dim_staff", "processed/mart_sales_day"),
    *("ledger", "schema_registry"),
)


@dataclass
class Theft:
    """Something that is taken once: ``when`` a run builds or loads, or after so many captures; in the end anyway."""

    take: Callable[[], None]
    when: str
    after: int
    is_done: bool = False

    def watch(self, run: Run) -> None:
        """Take it in this run, if it gets that far."""
        run.may_fail = self.is_done
        run.between = lambda captured: self._commit_in(run, f"capture {captured}")
        run.before = partial(self._commit_in, run)

    def _commit_in(self, run: Run, stage: str) -> None:
        if stage in (self.when, f"{self.when} {self.after}"):
            run.may_fail = True
            self.commit()

    def commit(self) -> None:
        """Take it now."""
        if not self.is_done:
            self.is_done = True
            self.take()


@contextmanager
def _no_look_at_what_is_over() -> Iterator[None]:
    """What PostgreSQL says of a transaction that has failed does not take the place of why it failed."""
    try:
        yield
    except duckdb.BinderException as error:
        if "current transaction is aborted" not in str(error):
            raise


class WatchedTotesys(Totesys):
    """ToteSys, with a look at what is committed whenever a snapshot is taken, and whatever a look found compared."""

    def __init__(self, url: str, schema: str, taken: Callable[[], None], remembered: Path) -> None:
        super().__init__(url, allow_superuser=True, schema=schema, remembered=remembered)
        self._taken = taken

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """The snapshot; nobody writes between its beginning and the look. Days are few here, and none are too many."""
        with mock.patch.object(looks, "_MOST", 1.0), super().snapshot() as snapshot:
            self._taken()
            yield snapshot
            for name, found in snapshot.looks.items():
                # If a table could not be read, the transaction is over.
                with suppress(duckdb.TransactionException), _no_look_at_what_is_over():
                    hashed = looks.hashed(snapshot, self.tables[name])[0]
                    assert found == hashed, f"a look found other fingerprints of {name}"


Record = tuple[str | None, ...]
# place -> (operation, row) in order
Histories = dict[Place, list[tuple[str | None, Record]]]


@dataclass(frozen=True)
class Site:
    """Where a world is written and observed, if not by the ways that the platform takes.

    ``settle`` waits until what was written to ``primary`` shows in ``source``.
    """

    source: str
    warehouse: str
    primary: str
    schema: str = "public"
    settle: Callable[[], None] = lambda: None


class World:
    """Source, lake and warehouse with everything that is known of them."""

    def __init__(
        self,
        lake: Path,
        source_url: str,
        warehouse_url: str,
        days: DayRange,
        tally: Tally,
        site: Site | None = None,
    ) -> None:
        self.source_url, self.warehouse_url = source_url, warehouse_url
        self._site = site
        self.folder, self.days, self.tally = lake, days, tally
        self.lake = Lake(str(lake))
        self.warehouse = Warehouse(warehouse_url)
        self.model = Model(days)  # the lake
        self.loaded = Model(days)  # the facts of the warehouse, which remember more than a lake that was lost
        self._left: dict[str, dict[str, tuple[Mapped, bool]]] = {}  # rows of dimensions that no lake has any more
        self.files = Files(days) if files.tables() else None  # only a copy of the package has such a source
        self.drops = Drops(lake.with_name(f"{lake.name}_files"), days)
        self._copy: Model | None = None
        self.drifted: set[str] = set()
        self._behind: set[str] = set()  # tables whose last capture failed: what is made of them may be behind
        # After a crash the model cannot tell whether the data was committed; what is there in the end, it can.
        self.counts_versions = True
        self._numbers = itertools.count(1)
        self._newest_state: dict[str, int] = {}
        self._seen: dict[str, dict[str, Record]] = {}
        self._instance: dg.DagsterInstance | None = None
        self._reader: Observer | None = None
        self._mark: str | None = None

    @property
    def marks(self) -> list[str]:
        """Those under which the next look takes nothing to have changed."""
        return [self._mark] if self._mark is not None else []

    def start_from(self, model: Model, first_files: Files | None) -> None:
        """Take over what is known of the template."""
        self.model, self.loaded = deepcopy(model), deepcopy(model)
        if first_files is not None:
            self.files = deepcopy(first_files)
            self.files.write_all()
        self._seen = {name: {str(row[0]): row for row in self._records(name)} for name in FACTS}

    def close(self) -> None:
        """Give up connections."""
        self.warehouse.close()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self.lose_dagster()

    @property
    def site(self) -> Site:
        """Where the world is written and observed."""
        return self._site or Site(self.source_url, self.warehouse_url, self.source_url)

    def sql(self, statement: str) -> None:
        """Run a statement in ToteSys, in a transaction of its own."""
        with self.writer() as writer:
            writer.run(statement)
        self.site.settle()
        self.wrote()

    def wrote(self) -> None:
        """Something may have been committed."""

    def writer(self) -> Observer:
        """A session that may write to ToteSys."""
        return Observer(self.site.primary, self.site.schema)

    def read(self) -> State:
        """What the source shows now."""
        return read(self.site.source, self.site.schema)

    def totesys(self, taken: Callable[[], None]) -> Totesys:
        """ToteSys as the platform reaches it; ``taken`` is called at every snapshot."""
        return WatchedTotesys(self.source_url, self.site.schema, taken, self.folder.parent / "home" / "looked_at")

    def sources(self, taken: Callable[[], None]) -> tuple[Source, ...]:
        """ToteSys as ``totesys`` opens it, and the sources beside it."""
        others = other_sources(self._settings())
        return self.totesys(taken), *others

    def _settings(self) -> Settings:
        return Settings.from_env(
            {
                "TOTESYS_URL": self.source_url,
                "WAREHOUSE_URL": self.warehouse_url,
                "LAKE_URI": self.lake.uri,
                "FILES_URI": str(self.drops.folder),
                "TOTESYS_HOME": str(self.folder.parent / "home"),
                "TOTESYS_FIRST_DAY": str(self.days.first),
                "TOTESYS_ALLOW_SUPERUSER": "1",
                "TOTESYS_RATES_ARCHIVE": str(RATES),
            }
        )

    # Refreshing

    def look(self, range_rows: int = 0) -> tuple[Look, State]:
        """What there is to do, in ranges of so many rows, and what was committed at that moment."""
        seen: list[State] = []
        sources = self.sources(lambda: seen.append(self.read()))
        found = look(Platform(sources, self.lake, self.warehouse, self.days, range_rows), unless=self._mark)
        self._mark = self._mark if found.mark is None else found.mark  # as the file in the home
        return found, seen[0]

    def refresh(
        self,
        between: Callable[[int], None] = lambda _: None,
        *,
        accept_deletions: bool = False,
        through_dagster: bool = False,
    ) -> None:
        """One pass: look, and run what is asked for. Nothing that was committed before it may be left out."""
        self.tally.refreshes += 1
        self.warehouse.migrate()
        found, state = self.look()
        problems = {str(problem) for problem in found.problems}
        assert len(problems) == len(self.drifted), f"could not be examined: {problems}"
        self._require_complete(found.requests, state)
        for request in found.requests:
            self.run(request, between, accept_deletions=accept_deletions, through_dagster=through_dagster)
        self.check()
        self._check_marts()

    def refresh_in_ranges(
        self, range_rows: int, order: Callable[[list[Request]], object], between: Callable[[int], None]
    ) -> None:
        """One pass by ranges, in any ``order`` within a turn; a second is done while the first captures its tables."""
        self.tally.refreshes += 1
        self.warehouse.migrate()
        found, state = self.look(range_rows)
        assert len({str(problem) for problem in found.problems}) == len(self.drifted), "could not be examined"
        self._require_complete(found.requests, state)
        for _, turn in itertools.groupby(found.requests, key=lambda each: each.turn):
            waiting = list(turn)
            order(waiting)
            while waiting:
                first, second = waiting.pop(), waiting.pop() if waiting else None

                def meanwhile(captured: int, second: Request | None = second) -> None:
                    between(captured)
                    if captured == 1 and second is not None:
                        self.run(second, accept_deletions=True)

                self.run(first, meanwhile, accept_deletions=True)
        self.check()
        self._check_marts()

    def backfill(self, days: DayRange) -> None:
        """A run of everything that is partitioned, for some days."""
        self.run(Request(tuple(partitioned(catalogue())), days))
        self.check()
        self._check_marts(days)

    def full(self, *, accept_deletions: bool = False) -> int:
        """A comparison of all content; the number of versions that it added."""
        before = self.tally.versions
        self.run(everything(catalogue(), self.days), accept_deletions=accept_deletions)
        self.check()
        self._check_marts()
        return self.tally.versions - before

    def _require_complete(self, requests: list[Request], state: State) -> None:
        """What differs from what is held must be asked for."""
        asked: dict[str, set[str]] = {}
        for request in requests:
            for asset in request.assets:
                group, _, table = asset.partition("/")
                if group in (TOTESYS, files.GROUP) or table in drops.TABLES:
                    asked.setdefault(table, set()).update(
                        request.days.keys if request.days and catalogue().source[table].day_column else {"*"}
                    )
        for table in COLUMNS.keys() - self.drifted:
            missed = [
                each for each in self.model.pending(table, None, state) if each[0][1] not in asked.get(table, set())
            ]
            self.tally.lost += len(missed)
            assert not missed, f"changes of {table} that no refresh asks for: {missed}"
        if self.files is not None:
            for each in files.tables():
                wanted = {key[0] if each.day_column else "*" for key, _ in self.files.pending(each.name, None)}
                assert wanted <= asked.get(each.name, set()), f"changes of {each.name} that no refresh asks for"
        for name in drops.TABLES:
            wanted = {self.drops.partition(name, key) for key, _ in self.drops.pending(name, None)}
            assert wanted <= asked.get(name, set()), f"changes of {name} that no refresh asks for"

    def run(
        self,
        request: Request,
        between: Callable[[int], None] = lambda _: None,
        *,
        accept_deletions: bool = False,
        through_dagster: bool = False,
        theft: Theft | None = None,
    ) -> None:
        """One run: capture in one snapshot, build, load; what follows a table that failed is left out."""
        self.tally.runs += 1
        run = Run(between)
        if theft is not None:
            theft.watch(run)
        all_shared = SharedSnapshots(self.sources(lambda: self._taken(run)))
        shared = all_shared.of(TOTESYS)
        tables = [table for table in _ORDER if f"totesys/{table}" in request.assets]
        if through_dagster:
            self._run_in_dagster(request, all_shared, accept_deletions)
            for table in tables:
                assert run.state is not None
                self.tally.versions += self._expect(table, request, run.state).total()
            self._expect_files(request)
            return
        with closing(OnePass(self.lake, self.warehouse, large=1)) as run.one_pass:
            try:
                for table in tables:
                    self._capture(run, shared, table, len(tables), request, accept_deletions)
                self._capture_others(all_shared, request)
            finally:
                all_shared.close()
            self._behind = (self._behind - set(tables)) | run.failed
            self._build_and_load(run, request)

    def _expect(self, table: str, request: Request, state: State) -> Counter[str]:
        """What a capture must add."""
        if not request.adopt_lake:
            self.loaded.capture(table, request.days, state)
        return self.model.capture(table, request.days, state)

    def _expect_files(self, request: Request) -> dict[str, Counter[str]]:
        """What the captures of the files must add, by table."""
        asked = [table.name for table in catalogue().source.values() if table.asset in request.assets]
        found = {
            name: self.drops.capture(name, request.days, loaded=not request.adopt_lake)
            for name in asked
            if name in drops.TABLES
        }
        if self.files is not None:
            of_sheets = {table.name for table in files.tables()}
            found |= {name: self.files.capture(name, request.days) for name in asked if name in of_sheets}
        return found

    def _capture_others(self, shared: SharedSnapshots, request: Request) -> None:
        """Capture from the sources beside ToteSys. Of the files of the world the model knows what must be added."""
        expected_by_table = self._expect_files(request)
        asked = [each for each in catalogue().source.values() if each.group != TOTESYS and each.asset in request.assets]
        for table in asked:
            count = sum(each.group == table.group for each in asked)
            work = partial(self._capture_other, request, table.name)
            captured = shared.of(table.group).read(table.name, work, table_count=count)
            if (expected := expected_by_table.get(table.name)) is None:
                continue
            names = {"insert": "inserted", "update": "updated", "delete": "deleted"}
            added = Counter({operation: captured.total(counted) for operation, counted in names.items()})
            self.tally.versions += expected.total()
            assert +added == expected, f"versions of {table.name} added: {dict(added)}, expected: {dict(expected)}"

    def _capture_other(self, request: Request, name: str, snapshot: SourceSnapshot) -> Captured:
        return capture(
            snapshot,
            self.lake,
            catalogue().source[name],
            all_days=self.days,
            days=request.days,
            run_id="harness",
            changes_only=request.changes_only,
            adopt_lake=request.adopt_lake,
            seen=request.seen,
            is_range=request.is_range,
        )

    def _taken(self, run: Run) -> None:
        """All tables of a run share one snapshot; only an error may lead to another."""
        if run.state is None or run.broken:
            run.state, run.broken, run.number = self.read(), False, next(self._numbers)

    def _capture(
        self, run: Run, shared: SharedSnapshot, table: str, table_count: int, request: Request, accept_deletions: bool
    ) -> None:
        def work(snapshot: SourceSnapshot) -> Counter[str]:
            try:
                captured = capture(
                    snapshot,
                    self.lake,
                    catalogue().source[table],
                    all_days=self.days,
                    days=request.days,
                    run_id="harness",
                    changes_only=request.changes_only,
                    accept_deletions=accept_deletions,
                    adopt_lake=request.adopt_lake,
                    seen=request.seen,
                    is_range=request.is_range,
                    onward=run.onward(table, request),
                )
            except PlatformError:
                run.broken = True
                raise
            counts = {
                "insert": captured.total("inserted"),
                "update": captured.total("updated"),
                "delete": captured.total("deleted"),
            }
            return Counter({name: count for name, count in counts.items() if count})

        try:
            added = shared.read(table, work, table_count=table_count)
        except SchemaDrift:
            assert table in self.drifted
            run.failed.add(table)
            return
        except MassDeletion:
            assert run.state is not None
            assert self.model.guarded(table, run.state)
            assert not accept_deletions
            run.failed.add(table)
            return
        except PlatformError as error:
            if run.may_fail:
                run.failed.add(table)
                return
            raise AssertionError(f"the capture of {table} failed: {error}") from error
        assert run.state is not None
        assert table not in self.drifted
        assert accept_deletions or not self.model.guarded(table, run.state), f"{table} lost its rows without a word"
        expected = self._expect(table, request, run.state)
        # A range may be of an earlier snapshot than what other ranges brought.
        overtaken = run.number < self._newest_state.get(table, 0) and not request.is_range
        assert not (overtaken and expected), f"{table} was brought back to an earlier state: {dict(expected)}"
        if expected and not request.is_range:
            self._newest_state[table] = run.number
        self.tally.versions += expected.total()
        if self.counts_versions:
            self.tally.lost += (expected - added).total()
            self.tally.doubled += (added - expected).total()
            assert added == expected, f"versions of {table} added: {dict(added)}, expected: {dict(expected)}"
        run.captured += 1
        run.between(run.captured)

    def _build_and_load(self, run: Run, request: Request) -> None:
        tables = catalogue()
        ordered = dict.fromkeys([*DIMENSIONS, *(name for name in tables.star if name not in FACTS), *tables.warehouse])
        made = [tables.warehouse[name] for name in ordered if not run.failed & set(query_of(name).sources)]
        unmade = set()
        run.before("build")
        for table in made:
            if table.asset in request.assets and not self._done(run, partial(self._build, run, table, request)):
                unmade.add(table.name)
        run.before("load")
        for table in made:
            if f"warehouse/{table.name}" in request.assets and table.name not in unmade:
                self._done(run, partial(self._load, run, table, request))

    def _done(self, run: Run, work: Callable[[], object]) -> bool:
        try:
            work()
        except PlatformError as error:
            if run.may_fail:
                return False
            raise AssertionError(f"a build or load failed: {error}") from error
        return True

    def _build(self, run: Run, table: Table, request: Request) -> None:
        days, by_changes = request.days, request.changes_only
        assert run.one_pass is not None
        with run.one_pass.engine(table, InDuckDb()) as engine:
            build(self.lake, catalogue(), table, days=days, run_id="harness", changes_only=by_changes, made_by=engine)

    def _load(self, run: Run, table: Table, request: Request) -> None:
        assert run.one_pass is not None
        with run.one_pass.copy(table) as copy:
            load(
                self.warehouse,
                self.lake,
                table,
                days=request.days,
                run_id="harness",
                changes_only=request.changes_only,
                adopt_lake=request.adopt_lake,
                copy=copy,
            )

    def _run_in_dagster(self, request: Request, shared: SharedSnapshots, accept_deletions: bool) -> None:
        self.tally.dagster_runs += 1
        if self._instance is None:
            self._instance = dg.DagsterInstance.ephemeral()
        definitions = build_definitions(self._settings(), {"shared_snapshots": shared})
        try:
            outcome = execute(definitions, self._instance, request, accept_deletions=accept_deletions)
        finally:
            shared.close()
        assert outcome.success, outcome.failures

    # Mishaps

    def lose_dagster(self) -> None:
        """Throw away everything that Dagster remembers."""
        if self._instance is not None:
            self._instance.dispose()
            self._instance = None

    def lose_warehouse(self) -> None:
        """Know nothing any more of a warehouse that is gone."""
        self.close()
        self.warehouse = Warehouse(self.warehouse_url)
        self._seen = {}

    def lose_ledger(self) -> None:
        """Throw away the notes of what was done."""
        shutil.rmtree(self.folder / "ledger", ignore_errors=True)
        self.model.forget_counts()

    def upgrade(self, lacking: str) -> None:
        """An older version left the warehouse; this one, in another process, finds that nothing else changed."""
        self.refresh()
        shape = older.shape(self.warehouse_url)
        older.make_older(self.warehouse_url, lacking)
        self.warehouse.close()
        self.warehouse = Warehouse(self.warehouse_url)
        older.refresh_by_command(self._settings(), self.source_url, self.warehouse_url)
        now = older.shape(self.warehouse_url)
        missing = sorted(set(shape) - set(now), key=repr)
        assert now == shape, f"a refresh leaves the warehouse of an older version without {missing}"
        self.check()
        self._check_marts()

    def keep_copy(self) -> None:
        """Make a backup of the lake, in place of the one before."""
        shutil.rmtree(self._backup, ignore_errors=True)
        shutil.copytree(self.folder, self._backup)
        self._copy = deepcopy(self.model)
        self.drops.keep_copy()
        if self.files is not None:
            self.files.keep_copy()

    def change_lake(self, *, restored: bool) -> None:
        """The lake is the backup from now on, or one in which there is nothing; the warehouse goes on with it."""
        if restored and self._copy is None:
            return
        left = {name: self._dimension(name) for name in DIMENSIONS}
        shutil.rmtree(self.folder)
        if restored and self._copy is not None:
            shutil.copytree(self._backup, self.folder)
        self.lake = Lake(str(self.folder))
        self.model = deepcopy(self._copy) if restored and self._copy is not None else Model(self.days)
        self.drops.change_lake(restored=restored)
        if self.files is not None:
            self.files.change_lake(restored=restored)
        self._adopt(left, unnoticed=restored)

    def lose(self, what: str, when: str = "between", after: int = 0, others: int = 0) -> None:
        """A part of the lake (of LOSSES) is removed: between two refreshes, or under one, ``when`` it builds or so.

        Its process goes on. What can be made again is made again by the next refresh; of versions, it must say.
        So many ``others`` write off what the lake has lost at once, before it is adopted.
        """
        left = {name: self._dimension(name) for name in DIMENSIONS}
        theft = Theft(partial(self._remove, what), when, after)
        if when == "between":
            theft.commit()
        else:
            self.tally.refreshes += 1
            found, state = self.look()
            self._require_complete(found.requests, state)
            for request in found.requests:
                self.run(request, theft=theft)
            theft.commit()
        if what == "" or what.startswith(f"{INGESTION}/"):
            self._adopt(left, unnoticed=False, others=others)
        else:
            self.refresh()

    def _remove(self, what: str) -> None:
        """Remove a part of the lake, and what is known of it."""
        shutil.rmtree(self.folder / what, ignore_errors=True)
        zone, _, table = what.partition("/")
        if what == "ledger":
            self.model.forget_counts()
        elif what == "":
            self.model = Model(self.days)
            self.drops.change_lake(restored=False)
            if self.files is not None:
                self.files.change_lake(restored=False)
        elif zone == INGESTION and table in COLUMNS:
            self.model.tables[table] = TableModel()
        elif zone == INGESTION:
            self.drops.lose(table)

    def _adopt(self, left: dict[str, dict[str, tuple[Mapped, bool]]], *, unnoticed: bool, others: int = 0) -> None:
        """Go on with the lake as it is now, after a refresh that must refuse it; it may be ``unnoticed`` that it is
        another. ``left`` are the dimensions as they were. ``others``: see ``lose``."""
        before = self._marks()
        refused = False
        try:
            self.look()
        except LakeChanged as refusal:
            refused = "--adopt-lake" in str(refusal)
        assert refused or unnoticed, "a lake that lost versions was taken for the one that was loaded from"
        assert self._marks() == before
        self._others_adopt(others)
        self.run(replace(everything(catalogue(), self.days), adopt_lake=True), accept_deletions=True)
        self.loaded.adopt(self.model)
        self.drops.adopt()
        self._left = left
        self.check()
        self._check_marts()

    def _others_adopt(self, others: int) -> None:
        """So many threads do at once what adopting a lake begins with. What it has lost is written off once."""
        if not others:
            return
        noted = Ledger(self.lake).totals()
        with ThreadPoolExecutor(others) as pool:
            list(pool.map(_write_off_all, [str(self.folder)] * others))
        now = Ledger(self.lake).totals()
        for table in catalogue().source.values():
            asset, held = ingestion_name(table), self._versions_by_partition(table)
            for partition, total in noted.get(asset, {}).items():
                left = now[asset][partition].versions
                assert left == min(total.versions, held[partition]), (
                    f"{left} of {partition} of {table.name} are noted, of {total.versions}, and {held[partition]} held"
                )

    def _versions_by_partition(self, table: Table) -> Counter[str]:
        """How many versions of a table the lake holds of each partition."""
        held = self.lake.find(INGESTION, table.name)
        if held is None:
            return Counter()
        if table.day_column is None:
            return Counter({WHOLE: held.to_pyarrow_dataset().count_rows()})
        days = held.to_pyarrow_dataset().to_table([table.day_column]).column(0)
        return Counter(str(day)[:10] for day in days.to_pylist())

    @property
    def _backup(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}_backup")

    def _dimension(self, name: str) -> dict[str, tuple[Mapped, bool]]:
        """By key, a dimension's row and whether it is flagged as deleted, as a row is that no lake has any more."""
        gone = {key: (row, True) for key, (row, _) in self._left.get(name, {}).items()}
        return gone | self.model.dimension(name)

    # Comparing with the model

    def reader(self, statement: str) -> list[Record]:
        if self._reader is None:
            self._reader = Observer(self.site.warehouse)
        return self._reader.run(statement)

    def _texts(self, columns: str, relation: str) -> list[Record]:
        listed = ", ".join(f"({column.strip()})::text" for column in columns.split(","))
        return self.reader(f"SELECT {listed} FROM {relation}")

    def _records(self, fact: str) -> list[Record]:
        """(record id, operation, recorded at, columns …) of every record, in the order of their numbers."""
        return sorted(self._texts(FACTS[fact].query, fact), key=lambda row: int(str(row[0])))

    def check(self) -> None:
        """Facts hold exactly the versions expected, and what was ever seen there is still as it was."""
        for fact, mapping in FACTS.items():
            records = self._records(fact)
            by_id = {str(row[0]): row for row in records}
            assert len(by_id) == len(records), f"a record number of {fact} was given twice"
            changed = {number: row for number, row in self._seen.get(fact, {}).items() if by_id.get(number) != row}
            assert not changed, f"records of {fact} that are gone or not as they were: {changed}"
            self._seen[fact] = by_id
            if mapping.source in self.drifted:
                continue
            found: Histories = {}
            for _, operation, _, *values in records:
                found.setdefault((str(values[0]), str(values[1])), []).append((operation, tuple(values)))
            expected: Histories = {
                place: [(version.operation, mapping.expected(version.row)) for version in versions]
                for place, versions in self.loaded.tables[mapping.source].versions.items()
            }
            self._compare(fact, found, expected)
        rates = "exchange_rate_record_id, _operation, exchange_rate_id, units_per_euro"
        records = sorted(self._texts(rates, "fact_exchange_rate"), key=lambda row: int(str(row[0])))
        self.drops.require_rates([row[1:] for row in records])

    def _compare(
        self,
        what: str,
        found: Histories,
        expected: Histories,
    ) -> None:
        for place in found.keys() | expected.keys():
            have, want = found.get(place, []), expected.get(place, [])
            if have != want:
                self.tally.lost += (Counter(want) - Counter(have)).total()
                self.tally.doubled += (Counter(have) - Counter(want)).total()
                raise AssertionError(f"versions of {place} in {what}:\n{have}\nexpected:\n{want}")

    def _check_marts(self, days: DayRange | None = None) -> None:
        """Marts hold what their SELECTs give over the star; after a backfill on its ``days``."""
        for mart in marts.marts(self._behind | self.drifted, days):
            found, expected = Counter(self.reader(marts.rows(mart))), marts.expected(self.lake, mart)
            differing = {
                row: (found[row], expected[row])
                for row in found.keys() | expected.keys()
                if found[row] != expected[row] and (days is None or str(row[0]) in days.keys)
            }
            assert not differing, f"rows of {mart.name}, and how often they are there and should be: {differing}"

    def check_everything(self, *, again: bool = True) -> None:
        """After the writers' end: nothing is left to do, and everything is as the source has it, in every column.

        ``again``: a comparison of all content then adds nothing, and writes nothing.
        """
        found, state = self.look()
        assert found.requests == [], f"still to do after a refresh: {found.stale}"
        assert found.problems == []
        self._check_lake()
        if self.files is not None:
            self.files.require_arrived(self.lake)
        self.drops.require_arrived(self.lake)
        self.drops.require_targets(
            self.reader(
                "SELECT concat_ws(', ', target_month, department_name, currency_code), amount::text "
                "FROM dim_sales_target WHERE NOT _is_deleted"
            )
        )
        self._check_star()
        self._check_facts(state)
        self.check_dimensions(state)
        self._check_dead_letters(state)
        if not again:
            return
        before = self._marks()
        assert self.full() == 0
        assert self._marks() == before, "a comparison of everything wrote to the warehouse, though nothing had changed"

    def _marks(self) -> list[Record]:
        return self.reader(
            " UNION ALL ".join(f"SELECT '{name}', ctid::text, xmin::text FROM {name}" for name in catalogue().warehouse)
        )

    def _check_lake(self) -> None:
        """The lake's versions are those of the model, in time."""
        for table, columns in COLUMNS.items():
            connection = engine.connect()
            try:
                held = register(connection, "held", self.lake.existing(catalogue().source[table]))
                texts = ", ".join(f"CAST({quoted(column)} AS VARCHAR)" for column in columns)
                rows = connection.execute(
                    f"SELECT _operation, _recorded_at::VARCHAR, {texts} FROM {held} ORDER BY _recorded_at"
                ).fetchall()
            finally:
                connection.close()
            found: Histories = {}
            moments: set[tuple[str, str, str]] = set()
            for operation, recorded_at, *values in rows:
                row = dict(zip(columns, values, strict=True))
                place = self.model.place(table, str(values[0]), row)
                assert (*place, recorded_at) not in moments, f"two versions of {place} of {table} at one moment"
                moments.add((*place, recorded_at))
                found.setdefault(place, []).append((operation, tuple(values)))
            expected: Histories = {
                place: [(version.operation, tuple(version.row.values())) for version in versions]
                for place, versions in self.model.tables[table].versions.items()
            }
            self._compare(f"{INGESTION}/{table}", found, expected)

    def _check_star(self) -> None:
        """The star's facts in the lake, from which a warehouse can be filled anew."""
        for fact, mapping in FACTS.items():
            columns = ["_operation", *mapping.query.split(", ")[3:]]
            connection = engine.connect()
            try:
                held = register(connection, "held", self.lake.open_processed(catalogue().star[fact]))
                texts = ", ".join(f"CAST({quoted(column)} AS VARCHAR)" for column in columns)
                rows = connection.execute(f"SELECT {texts} FROM {held}").fetchall()
            finally:
                connection.close()
            times = [number for number, column in enumerate(columns) if column.endswith("_time")]
            found = Counter(
                tuple(_as_postgres(value) if number in times else value for number, value in enumerate(row))
                for row in rows
            )
            expected: Counter[Record] = Counter(
                (version.operation, *mapping.expected(version.row))
                for versions in self.model.tables[mapping.source].versions.values()
                for version in versions
            )
            assert found == expected, f"{fact} in the lake"

    def _check_facts(self, state: State) -> None:
        for fact, mapping in FACTS.items():
            subject = fact.removeprefix("fact_")
            columns = mapping.query.split(", ", 3)[3]
            rows = self._texts(columns, f"current_{subject}")
            current = {str(row[0]): row for row in rows}
            assert len(current) == len(rows), f"a row twice in current_{subject}"
            expected = {key: mapping.expected(row) for key, row in self.loaded.current(mapping.source).items()}
            assert current == expected, f"current_{subject}"
            good = {
                key: mapping.expected(row)
                for key, row in state[mapping.source].items()
                if not is_dead(mapping.source, row, self.days)
            }
            assert good.items() <= current.items(), f"current_{subject} is not what the source has"
            assert current.keys() <= state[mapping.source].keys(), f"rows in current_{subject} that are gone"
            self._check_history(subject)
            self._check_references(mapping.source, state)

    def _check_history(self, subject: str) -> None:
        key, links = f"{subject}_id", "valid_from, valid_to, is_current, is_deleted, _operation, _recorded_at"
        by_key: dict[str | None, list[Record]] = {}
        for number, *rest in self._texts(f"{key}, {links}", f"history_{subject}"):
            by_key.setdefault(number, []).append(tuple(rest))
        for number, versions in by_key.items():
            ordered = sorted(versions, key=lambda row: (str(row[0]), row[2] == "true", row[3] != "true"))
            ends = [row[1] for row in ordered]
            assert ends == [*(row[0] for row in ordered[1:]), None], f"validity of {subject} {number}: {ordered}"
            assert [row[2] for row in ordered] == ["false"] * (len(ordered) - 1) + ["true"]
            assert all((row[3] == "true") == (row[4] == "delete") and row[0] == row[5] for row in ordered)
        present = {
            number for number, versions in by_key.items() if any(row[2:4] == ("true", "false") for row in versions)
        }
        current = {row[0] for row in self._texts(key, f"current_{subject}")}
        assert present == current, f"history and current of {subject} show other rows: {present ^ current}"

    def _check_references(self, source: str, state: State) -> None:
        """What a present row refers to is there, unless it is, or hangs on, a dead letter."""
        held = {
            dimension.source: {str(row[0]) for row in self._texts(dimension.query.split(", ")[0], name)}
            for name, dimension in DIMENSIONS.items()
        }
        for row in state[source].values():
            if is_dead(source, row, self.days):
                continue
            for column, table in REFERENCES[source].items():
                key = str(row[column])
                excused = key not in self.model.current(table) or table in ("staff", "counterparty")
                assert key in held[table] or excused, f"{source} refers to {table} {key}, which no dimension has"

    def check_dimensions(self, state: State) -> None:
        """Dimensions are as the model has them, in every column; what is gone is flagged."""
        for name, dimension in DIMENSIONS.items():
            rows = self._texts(f"{dimension.query}, _is_deleted", name)
            found = {str(row[0]): (row[:-1], row[-1] == "true") for row in rows}
            assert found == self._dimension(name), name
            there = {key for key, (_, is_deleted) in found.items() if not is_deleted}
            assert there <= state[dimension.source].keys(), f"rows in {name} that are gone are not flagged"
        days = {str(row[0]) for row in self._texts("date_id", "dim_date")}
        for fact, mapping in FACTS.items():
            for column in mapping.query.split(", "):
                if column.endswith("_date"):
                    named = {str(row[0]) for row in self._texts(column, fact)}
                    assert named <= days, f"days that {fact} names and dim_date has not"

    def check_audit(self) -> None:
        """The audit finds nothing wrong. Rows that come back as they were it can only warn of."""
        sources = self.sources(lambda: None)
        # The days of a world may have no rates.
        wanted = [pair for pair in checks(catalogue()) if "exchange_rate" not in pair[0]]
        found = audit(Platform(sources, self.lake, self.warehouse, self.days), wanted)
        wrong = [
            finding for finding in found if not finding.passed and not finding.warning and not self._excuses(finding)
        ]
        assert not wrong, f"the audit: {wrong}"

    def _excuses(self, finding: Finding) -> bool:
        if finding.check != "references_found":
            return False
        # A row that is a dead letter, and has another key since.
        state = self.read()
        dead = {key for name in COLUMNS for key, row in state[name].items() if is_dead(name, row, self.days)}
        named = {*re.findall(r"\d+", finding.detail)}
        return bool(named) and named <= dead

    def _check_dead_letters(self, state: State) -> None:
        found = {(str(row["table_name"]), str(row["row_key"])) for row in open_dead_letters(self.lake).to_pylist()}
        expected = {
            (table, key) for table, rows in state.items() for key, row in rows.items() if is_dead(table, row, self.days)
        }
        expected |= self.drops.letters()
        if self.files is not None:
            expected |= self.files.letters()
        assert found == expected, f"the dead letters: {found - expected}, expected: {expected - found}"


def _write_off_all(folder: str) -> None:
    """What adopting a lake begins with."""
    lake = Lake(folder)
    for table in catalogue().source.values():
        write_off(lake, table, "another")


def _as_postgres(time: str) -> str:
    """A time of day of the lake, which has always three decimals, as PostgreSQL writes it."""
    return time.removesuffix(".000") if time.endswith(".000") else time.rstrip("0")
