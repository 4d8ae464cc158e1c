"""The condition of a platform: what an operator asks first.

Belongs here: gathering it from the sources, the lake, the warehouse and Dagster's records, even if one of them is down.
Does not belong here: printing it (commands/status.py). Nothing is written.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import duckdb
import psycopg

from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.capture.ledger import Entry, Ledger
from totesys_assets.capture.lost_ledger import ingestion_name
from totesys_assets.catalogue.catalogue import Catalogue
from totesys_assets.engine import reason
from totesys_assets.errors import ConnectionFailed, PlatformError
from totesys_assets.lake.tables import Lake
from totesys_assets.load.origin import require_known_lake
from totesys_assets.names import TOTESYS, WAREHOUSE
from totesys_assets.platform import Platform
from totesys_assets.staleness import mark
from totesys_assets.staleness.following import LogCondition, end_following, log_condition
from totesys_assets.staleness.look import Examined, Look, examine, look

T = TypeVar("T")
Part = Literal["totesys", "lake", "warehouse", "dagster"]


@dataclass(frozen=True)
class Failure:
    """The last refresh or look that failed: when, the run if it was one, and why, in a sentence."""

    at: datetime
    run_id: str | None
    problem: str


@dataclass(frozen=True)
class SourceTable:
    """A table of a source. ``stale``: how many partitions wait for a refresh; None if that could not be found out.

    ``behind_seconds``: upper bound of the age of its oldest change that is not loaded; 0 if there is none, None if
    unknown. ``blocked``: why it cannot be captured. ``captured_at``: when rows of it were last captured.
    ``unknown_columns``: columns that the catalogue does not have, and that are left out.
    """

    table: str
    captured_at: datetime | None
    stale: int | None
    behind_seconds: float | None
    blocked: str | None
    dead_letters: int | None
    unknown_columns: list[str]


@dataclass(frozen=True)
class StarTable:
    """A table of the warehouse. ``rows`` is None for a large fact, which is not counted."""

    table: str
    rows: int | None
    versions: int
    loaded_at: datetime | None
    stale: int | None


@dataclass
class Condition:
    """All of it. ``down``: part -> why it cannot be reached. ``up_to_date_at``: when everything was last loaded.

    ``left_over``: tables of the warehouse that were loaded once, and that the catalogue does not have any more.
    ``log``: how the log of ToteSys is followed; None where that is not wanted.
    """

    source: list[SourceTable] = field(default_factory=list)
    tables: list[StarTable] = field(default_factory=list)
    stale: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    down: dict[str, str] = field(default_factory=dict)
    dead_letters: list[dict[str, Any]] = field(default_factory=list)
    up_to_date_at: datetime | None = None
    last_failure: Failure | None = None
    lake_bytes: int | None = None
    disk_free_bytes: int | None = None
    left_over: list[str] = field(default_factory=list)
    log: LogCondition | None = None

    @property
    def well(self) -> bool:
        """Whether every part could be reached, and every table can be captured."""
        return not self.down and not self.problems


def condition(platform: Platform, home: Path, *, records: bool, most: int) -> Condition:
    """Gather it. ``records``: also read Dagster's records. Tables with more than ``most`` rows are not counted."""
    found, lake, warehouse = Condition(), platform.lake, platform.warehouse
    no_notes: dict[str, dict[str, Entry]] = {}
    no_contents: list[tuple[str, int | None, int]] = []
    no_moments: dict[str, datetime] = {}
    noted = _asked(found, "lake", lambda: Ledger(lake).newest(), no_notes)
    found.dead_letters = _asked(found, "lake", lambda: open_dead_letters(lake).to_pylist(), [])
    found.lake_bytes = _asked(found, "lake", lake.size, None)
    found.disk_free_bytes = _disk_free(lake)
    contents = _asked(found, "warehouse", lambda: warehouse.contents(most), no_contents)
    loaded = _asked(found, "warehouse", warehouse.loaded_at, no_moments)
    found.left_over = _asked(found, "warehouse", warehouse.left_over, [])
    if "warehouse" not in found.down:
        _asked(found, "lake", lambda: require_known_lake(warehouse, lake), None)
    examined, seen = _look(found, platform)
    found.problems = [text for text in map(str, examined.blocked.values()) if text not in found.down.values()]
    if seen is not None:
        found.stale = {asset: sorted(partitions) for asset, partitions in seen.stale.items()}
    found.up_to_date_at = mark.marked_at(home, lake.uri)
    found.log = _asked(found, "totesys", lambda: log_condition(platform), None)
    end_following(platform)
    if records:
        _asked(found, "dagster", lambda: _read_records(found), None)
    if seen is not None and not seen.stale and not examined.blocked:
        found.up_to_date_at = datetime.now(UTC)
    found.source = _sources(platform.catalogue, found, examined, seen, noted)
    found.tables = [
        StarTable(name, rows, versions, loaded.get(name), _stale(seen, f"{WAREHOUSE}/{name}"))
        for name, rows, versions in contents
    ]
    return found


def _asked(found: Condition, part: Part, question: Callable[[], T], otherwise: T) -> T:
    """The answer of a part. If it cannot be reached: ``otherwise``, and the reason is noted in ``found.down``."""
    if part in found.down:
        return otherwise
    try:
        return question()
    except PlatformError as error:
        found.down[part] = str(error)
    except (psycopg.Error, duckdb.Error, OSError) as error:
        found.down[part] = f"{reason(error)}."
    return otherwise


def _look(found: Condition, platform: Platform) -> tuple[Examined, Look | None]:
    """The condition of the sources' tables, and the look, if lake and warehouse can be reached."""
    examined: list[Examined] = []
    if "lake" in found.down or "warehouse" in found.down:
        return _asked(found, "totesys", lambda: examine(platform), Examined()), None
    seen = _asked(found, "totesys", lambda: look(platform, on_examined=examined.append), None)
    if seen is None and examined and examined[0].blocked:  # the sources answer, but no table can be captured
        del found.down["totesys"]
    if examined and (unreachable := _unreachable(platform.catalogue, examined[0])):  # though others can be reached
        found.down["totesys"] = unreachable
    return examined[0] if examined else Examined(), seen


def _unreachable(catalogue: Catalogue, examined: Examined) -> str | None:
    """Why none of ToteSys's tables could be examined, if that is because it cannot be reached."""
    problems = [examined.blocked.get(table.name) for table in catalogue.source.values() if table.group == TOTESYS]
    return str(problems[0]) if all(isinstance(problem, ConnectionFailed) for problem in problems) else None


def _stale(seen: Look | None, asset: str) -> int | None:
    return None if seen is None else len(seen.stale.get(asset, ()))


def _sources(
    catalogue: Catalogue,
    found: Condition,
    examined: Examined,
    seen: Look | None,
    noted: Mapping[str, Mapping[str, Entry]],
) -> list[SourceTable]:
    letters = Counter(str(letter["table_name"]) for letter in found.dead_letters)
    result = []
    for table in catalogue.source.values():
        entries = noted.get(ingestion_name(table), {})
        problem = examined.blocked.get(table.name)
        waiting = set(found.stale.get(table.asset, ()))
        result.append(
            SourceTable(
                table=table.name,
                captured_at=max((entry.recorded_at for entry in entries.values()), default=None),
                stale=None if problem is not None else _stale(seen, table.asset),
                behind_seconds=None if seen is None else _behind(waiting, entries, found.up_to_date_at, problem),
                blocked=None if problem is None else str(problem),
                dead_letters=None if "lake" in found.down else letters[table.name],
                unknown_columns=examined.unknown.get(table.name, []),
            )
        )
    return result


def _behind(
    waiting: set[str], entries: Mapping[str, Entry], up_to_date_at: datetime | None, problem: PlatformError | None
) -> float | None:
    """Upper bound of the age of the oldest waiting change: each is younger than the last moment without it."""
    now = datetime.now(UTC)
    if problem is not None:
        waiting = {""}  # unknown which
    ages = []
    for partition in waiting:
        captured = entries[partition].recorded_at if partition in entries else None
        known = [moment for moment in (captured, up_to_date_at) if moment is not None]
        if not known:
            return None
        ages.append((now - max(known)).total_seconds())
    return max(ages, default=0.0)


def _read_records(found: Condition) -> None:
    import dagster as dg

    from totesys_assets.automation.records import newest_trouble, seen

    with dg.DagsterInstance.get() as instance:
        moments = [datetime.fromtimestamp(moment, UTC) for moment in [seen(instance).up_to_date] if moment]
        found.up_to_date_at = max([*moments, *filter(None, [found.up_to_date_at])], default=None)
        trouble = newest_trouble(instance)
        if trouble is not None:
            found.last_failure = Failure(datetime.fromtimestamp(trouble[0], UTC), *trouble[1:])


def _disk_free(lake: Lake) -> int | None:
    """Bytes left on the disk of the lake, if it is in a folder."""
    if "://" in lake.uri:
        return None
    folder = Path(lake.uri)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free if os.access(folder, os.X_OK) else None
