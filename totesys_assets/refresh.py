"""One refresh in this process: the look, the runs that materialise what is stale, and the summary of what they did.

Belongs here: the order of these, and the summary. Does not belong here: deciding (staleness/), executing a run
(automation/refresh.py) and printing (commands/refresh.py). Dagster takes longest to import, and is imported only when
there is something to run.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from totesys_assets import stages
from totesys_assets.capture.dead_letters import open_letters
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.dagster_home import dagster_home
from totesys_assets.databases import Databases, dagster_records
from totesys_assets.days import DayRange
from totesys_assets.errors import PlatformError
from totesys_assets.load.origin import Origin, refuse_as_of, refuse_to_begin_anew, require_known_lake
from totesys_assets.platform import Platform
from totesys_assets.settings import Settings
from totesys_assets.source.shared_snapshot import SharedSnapshots
from totesys_assets.staleness.decide import Request, everything, partitioned
from totesys_assets.staleness.following import begin_following, end_following, why_not_followed
from totesys_assets.staleness.look import Look, look, mark_when_done
from totesys_assets.staleness.mark import read_mark, write_mark
from totesys_assets.staleness.ranges import in_ranges
from totesys_assets.staleness.spans import rows_of
from totesys_assets.warehouse.warehouse import Warehouse

if TYPE_CHECKING:
    from totesys_assets.automation.refresh import Outcome

# A table is counted in time proportional to its rows, and the current rows of a fact need a sort as well. A refresh
# counts no table with more records than this.
MOST_COUNTED = 100_000
# The thread that makes tables where all is new.
_MAKE_TABLES: list[threading.Thread] = []


class Audience(Protocol):
    """Receives the progress of a refresh."""

    def doing(self, what: str) -> AbstractContextManager[object]:
        """What is done in the block."""

    def running(self, request: Request, place: str) -> AbstractContextManager[object]:
        """The request whose run lasts as long as the block. ``place``: which of several it is, as '2 of 6', or ''."""

    def say(self, text: str) -> None:
        """Something that happened."""


@dataclass
class Summary:
    """What a refresh did, as ``--json`` prints it.

    ``stages`` shares out the seconds of its runs; ``work`` are those that its threads spent in each stage of the work.
    ``versions``: how many were captured, by source table.
    ``dead_letters`` says how many are ``open``, and how many of these are ``new``.
    ``unknown_columns``: by table, those that the catalogue does not know; they were left out.
    ``log_lost``: why the log of ToteSys is not followed though that is wanted.
    """

    changed: bool
    success: bool
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    work: dict[str, float] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    dead_letters: dict[str, int] = field(default_factory=dict)
    unknown_columns: dict[str, list[str]] = field(default_factory=dict)
    log_lost: str | None = None
    tables: list[dict[str, Any]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Add what one run did."""
        days = outcome.request.days
        self.success = self.success and outcome.success
        self.problems += outcome.failures
        for group, seconds in outcome.seconds.items():
            self.stages[group] = round(self.stages.get(group, 0.0) + seconds, 3)
        for table, count in outcome.versions.items():
            self.versions[table] = self.versions.get(table, 0) + count
        self.runs.append(
            {
                "run_id": outcome.run_id,
                "success": outcome.success,
                "assets": list(outcome.request.assets),
                "from": days.first if days else None,
                "to": days.last if days else None,
            }
        )


def refresh(
    settings: Settings,
    urls: Databases,
    audience: Audience,
    days: tuple[date, date] | None = None,
    *,
    started: float,
    full: bool = False,
    accept_deletions: bool = False,
    adopt_lake: bool = False,
) -> Summary:
    """Look, run what is stale, and say what was done. ``started``: when it began, by the clock of time.monotonic.

    ``days`` or ``full``: compare all content of these days, or of all, whatever a look would say. Afterwards the
    warehouse has the tables and views of this version, also if nothing had to be loaded. Raises PlatformError.
    """
    platform = Platform.of(settings, urls.totesys, urls.warehouse)
    lake, warehouse, all_days = platform.lake, platform.warehouse, platform.all_days
    shared_snapshots = SharedSnapshots(platform.sources)
    seen = Look()
    try:
        with audience.doing("Looking for changes"):
            if adopt_lake:
                refuse_as_of(map(Origin.parse, warehouse.origins().values()), warehouse.schema)
            elif full or days is not None:
                require_known_lake(warehouse, lake)
            if full or adopt_lake:
                requests = [replace(everything(catalogue(), all_days), adopt_lake=adopt_lake)]
            elif days is not None:
                requests = _backfill(DayRange(*days), platform)
            else:
                mark = read_mark(settings.home)
                refuse_to_begin_anew(lake, warehouse)
                begin_following(platform)
                seen = look(platform, unless=mark, shared_snapshots=shared_snapshots, before_scan=begin_imports)
                requests = seen.requests
        problems = [str(problem) for problem in seen.problems]
        summary = Summary(changed=bool(requests), success=not problems, problems=problems)
        letters = open_letters(lake) if requests else None
        if requests or problems:
            while _MAKE_TABLES:
                _MAKE_TABLES.pop().join()
            with dagster_records(settings, urls, audience.say) as urls:
                dagster_home(settings, urls.dagster)
                is_backfill = days is not None and not full
                runs = _Runs(settings, warehouse, shared_snapshots, audience, accept_deletions, is_backfill)
                runs.execute(requests, seen, summary)
        _migrate(warehouse, summary)
    finally:
        shared_snapshots.close()
        end_following(platform)
    mark = mark_when_done(seen, platform) if seen.requests and summary.success else seen.mark
    if mark is not None:
        write_mark(settings.home, mark, seen.looked_at)
    summary.unknown_columns, summary.log_lost = seen.examined.unknown, why_not_followed(platform)
    summary.seconds, summary.work = time.monotonic() - started, stages.take()
    now = open_letters(lake)
    summary.dead_letters = {"new": 0 if letters is None else len(now.keys() - letters.keys()), "open": len(now)}
    summary.tables = contents_of(warehouse, most=MOST_COUNTED)
    return summary


def _migrate(warehouse: Warehouse, summary: Summary) -> None:
    """Do what each load does first: after an upgrade there may be none for long, or none that gets so far."""
    try:
        warehouse.migrate()
    except PlatformError as problem:
        if summary.success:
            raise
        if not any(str(problem) in each for each in summary.problems):  # a load may have said so
            summary.problems.append(str(problem))


def contents_of(warehouse: Warehouse, most: int | None = None) -> list[dict[str, Any]]:
    """Rows and versions of every table of the warehouse; of one larger than ``most``, rows are None."""
    counted = warehouse.contents(most)
    return [{"table": name, "rows": rows, "versions": versions} for name, rows, versions in counted]


def _backfill(days: DayRange, platform: Platform) -> list[Request]:
    all_days, request = platform.all_days, Request(tuple(partitioned(catalogue())), days)
    if days.first > days.last or days.first not in all_days or days.last not in all_days:
        raise PlatformError(
            f"The days {days.first} to {days.last} are not a range within {all_days.first} to {all_days.last}, "
            "the days that have partitions. TOTESYS_FIRST_DAY sets the first."
        )
    rows = rows_of(platform, days) if platform.range_rows else {}
    return in_ranges(catalogue(), request, rows, platform.range_rows)


@cache  # once in a process
def begin_imports() -> threading.Thread:
    """Import Dagster in a thread: it takes as long as the source takes to scan its tables, or servers take to start."""
    thread = threading.Thread(target=_import, daemon=True)
    thread.start()
    return thread


def _import() -> None:
    # In the order in which they are needed: the instance's storages bring SQLAlchemy and alembic, and PyArrow looks for
    # pandas as soon as it is given lists.
    gc.disable()  # what is imported stays: looking through it for garbage takes time and finds none
    try:
        for module in ("totesys_assets.definitions", "dagster_postgres", "pandas"):
            import_module(module)
    finally:
        gc.freeze()
        gc.enable()


def begin_tables(settings: Settings, urls: Databases) -> None:
    """Begin to make Dagster's tables and the warehouse's, in a thread, for which the next refresh waits.

    What fails there fails once more in the refresh, which says so.
    """
    thread = threading.Thread(target=_make_tables, args=[settings, urls], daemon=True)
    _MAKE_TABLES.append(thread)
    thread.start()


def _make_tables(settings: Settings, urls: Databases) -> None:
    begin_imports().join()
    dagster_home(settings, urls.dagster)
    import_module("dagster").DagsterInstance.get()
    Warehouse(urls.warehouse, settings.warehouse_schema).migrate()


@dataclass(frozen=True)
class _Runs:
    """How the requests of a refresh are executed through Dagster, one after the other."""

    settings: Settings
    warehouse: Warehouse
    shared_snapshots: SharedSnapshots
    audience: Audience
    accept_deletions: bool
    is_backfill: bool

    def execute(self, requests: Sequence[Request], seen: Look, summary: Summary) -> None:
        """Execute the requests, each as a run, and add to the summary what they did."""
        with self.audience.doing("Starting Dagster"):
            import dagster as dg

            from totesys_assets.assets.blocked import report
            from totesys_assets.automation.refresh import execute
            from totesys_assets.automation.sensors import GRACE_SECONDS, fail_dead_runs
            from totesys_assets.definitions import build_definitions

            instance = dg.DagsterInstance.get()
            fail_dead_runs(instance, self.warehouse.is_alive, datetime.now(UTC), GRACE_SECONDS)
            if seen.source:  # it is empty where nobody looked: a backfill, a comparison of everything
                report(instance, catalogue(), seen.examined)
            definitions = build_definitions(self.settings, {"shared_snapshots": self.shared_snapshots})
            gc.freeze()  # what is there now stays: to look through it for garbage again and again would take a second
        left_out = " ".join(seen.told)
        for number, request in enumerate(requests, 1):
            place = f"{number} of {len(requests)}" if len(requests) > 1 else ""
            began = time.monotonic()
            with self.audience.running(request, place):
                outcome = execute(
                    definitions,
                    instance,
                    request,
                    accept_deletions=self.accept_deletions,
                    left_out=left_out,
                    is_backfill=self.is_backfill,
                )
            summary.add(outcome)
            if place:  # each may take long, and a log or pipe shows no bar
                ended = f"done in {time.monotonic() - began:.1f} s" if outcome.success else "failed"
                self.audience.say(f"{place}, {request.named}: {ended}")
