"""Building a star table or mart: its SELECT over the lake's versions adds rows, or replaces the days asked for.

Belongs here: what must be made anew, and what is noted of it. Does not belong here: what a star table is, which is its
SQL, what that reads (schemas.py), and how its rows are made and committed (engines/).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.capture.ledger import SETS, Entry, Ledger, state_of
from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.catalogue.queries import Query, query_of
from totesys_assets.days import WHOLE, DayRange, Days
from totesys_assets.errors import ConcurrentWriters
from totesys_assets.lake.commit import LostRace
from totesys_assets.lake.marks import mark
from totesys_assets.lake.read import RECORDED, lies_within, recorded_until, register
from totesys_assets.lake.tables import INGESTION, PROCESSED, Lake
from totesys_assets.sql_text import quoted
from totesys_assets.transform.engines.in_duckdb import InDuckDb, remake
from totesys_assets.transform.engines.interface import Engine, Work
from totesys_assets.transform.schemas import select_of
from totesys_assets.transform.sets import Sets

_ATTEMPTS = 5
# Noted with the commits to a star table that holds a row for each version up to RECORDED: a digest of those tables of
# versions and of the SELECT. 0 if it does not hold one.
_MADE_OF = "made_of"
States = Mapping[str, Mapping[str, Entry]]


@dataclass(frozen=True)
class Built:
    """What one build of one star table did: an entry for each of its partitions."""

    entries: list[Entry]

    @property
    def rows(self) -> int:
        """Rows that the partitions hold now."""
        return sum(entry.rows for entry in self.entries)


def processed_name(table: Table) -> str:
    """Name of a star table's or mart's asset in the ledger."""
    return f"{PROCESSED}/{table.name}"


def expected_states(table: Table, states: States) -> dict[str, str]:
    """State that each partition of ``table`` has when built from its sources' ``states`` by its present SELECT.

    A partition without any source row has no state. A changed SELECT gives other states, so that it is run again.
    """
    query = query_of(table.name)
    inputs = {source: states.get(f"{INGESTION}/{source}", {}) for source in query.sources}
    whole, dated = _read_whole(table, query, inputs), _read_by_day(table, query, inputs)
    listed = [
        f"{source} {key} {entry.content}"
        for source in whole
        for key, entry in sorted(inputs[source].items())
        if entry.state
    ]
    if not table.day_column:
        return {WHOLE: _digest(_definition(table), *listed)}
    by_day = [inputs[source] for source in dated]
    keys = {key for entries in by_day for key, entry in entries.items() if entry.state}
    definition, all_of_them = _definition(table), [_digest(*listed)] if whole else []
    return {
        key: _digest(definition, *(entries[key].content if key in entries else "" for entries in by_day), *all_of_them)
        for key in keys
    }


def _read_whole(table: Table, query: Query, inputs: States) -> list[str]:
    """The sources of which each partition is made whole: a change of any row makes all partitions stale."""
    if not table.day_column:
        return [*inputs]
    return [source for source, entries in inputs.items() if source in query.whole_sources or WHOLE in entries]


def _read_by_day(table: Table, query: Query, inputs: States) -> list[str]:
    """The sources of which each partition is made of the rows of its own day. A mart may read one in both ways."""
    if table.is_mart:
        return [source for source in inputs if source in query.dated_sources]
    return [source for source, entries in inputs.items() if WHOLE not in entries]


def _definition(table: Table) -> str:
    """What the rows are made by: another text may give other rows. Of a mart the types of its DDL belong to it."""
    definition = query_of(table.name).definition
    return f"{select_of(table)}\n{definition}" if table.is_mart else definition


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def build(
    lake: Lake,
    catalogue: Catalogue,
    table: Table,
    *,
    days: Days | None,
    run_id: str,
    changes_only: bool = False,
    made_by: Engine | None = None,
) -> Built:
    """Bring star ``table`` up to the lake's versions, for ``days`` (None: the whole table).

    ``changes_only``: rows that were built before are believed in; where a SELECT makes one row of each version, only
    the versions recorded since are added, on whatever day they are. Else the days are made anew. ``made_by`` is the
    engine that makes the rows of partitioned tables, DuckDB by default. It makes those of the others in any case: they
    are small, what is kept of them is DuckDB's, and what most changes leave as it is would only wait for a server.
    Data first, then the ledger. Raises ConcurrentWriters when other writers win five times in a row.
    """
    days = days if table.day_column else None
    for _ in range(_ATTEMPTS):
        with engine.readable_errors(f'Building "{table.name}" failed, and will be done again by the next refresh'):
            try:
                return _build_once(
                    lake, catalogue, table, days, run_id, made_by or InDuckDb(), changes_only=changes_only
                )
            except LostRace:
                continue
    raise ConcurrentWriters(
        f'Other refreshes committed to "{table.name}" {_ATTEMPTS} times while this one built it. '
        "Nothing is lost; refresh again."
    )


def _build_once(
    lake: Lake,
    catalogue: Catalogue,
    table: Table,
    days: Days | None,
    run_id: str,
    made_by: Engine,
    *,
    changes_only: bool,
) -> Built:
    # The order matters: the star's handle first, so that a faster build is noticed; then the states, so that what is
    # noted is never newer than what is read.
    ledger = Ledger(lake)
    if not lake.holds(table):
        ledger.forget(processed_name(table), run_id)
    target = lake.open_processed(table)
    known = ledger.newest()
    expected = expected_states(table, known)
    before = known.get(processed_name(table), {})
    sources = {name: lake.find_versions(catalogue.source[name]) for name in query_of(table.name).sources}
    with engine.session() as connection:
        work = Work(connection, catalogue, table, query_of(table.name), target, sources)
        star = _Star(work, made_by)
        added, digest, sets = bool(table.day_column) and star.add(days), "", None
        if not table.day_column:
            held = known.get(SETS, {}).get(table.name)
            digest, sets = remake(work, Sets.parse(held.state) if held is not None else None, keep=changes_only)
        elif not (added and (changes_only or star.is_new)):
            rows: Counter[str] = Counter()
            for name in sources:
                rows.update({key: entry.rows for key, entry in known.get(f"{INGESTION}/{name}", {}).items()})
            star.replace(days, rows)
        keys = days.keys if days is not None else [WHOLE]
        if added:  # to all days, also to those that nobody asked for
            stale = [key for key in expected.keys() | before.keys() if expected.get(key, "") != state_of(before, key)]
            keys = sorted({*keys, *stale})
        counts = star.rows(keys)
        lake.share(target, PROCESSED, table.name)
    now = datetime.now(UTC)
    entries = [
        Entry(processed_name(table), key, expected.get(key, ""), counts.get(key, 0), now, run_id, digest=digest)
        for key in keys
    ]
    notes = [Entry(SETS, table.name, sets.text, 0, now, run_id)] if sets is not None else []
    ledger.append([*(entry for entry in entries if entry.state != state_of(before, entry.partition)), *notes])
    return Built(entries)


def built_from(star: DeltaTable) -> tuple[int, int] | None:
    """Of a star table that holds a row for each version up to some moment: what it was made of, and the moment.

    Both are numbers, the moment in microseconds since 1970. None for a star table that cannot say so.
    """
    origin, until = mark(star, _MADE_OF), mark(star, RECORDED)
    return (origin, until) if origin and until is not None else None


class _Star:
    """One star table while it is built from one state of its sources, by an engine."""

    def __init__(self, work: Work, made_by: Engine) -> None:
        self._work, self._engine = work, made_by
        self._table, self._target, self._sources = work.table, work.target, work.sources
        # Whether all of it was added at once, so that there is nothing to make anew.
        self.is_new = False

    def add(self, days: Days | None) -> bool:
        """Add rows for the versions recorded since the last build, of all days. False where that cannot be told.

        Nor are they added to an empty table if all of them are of ``days``, which are made anew.
        """
        if not self._work.query.is_row_by_row:
            return False
        ((name, source),) = self._sources.items()
        built, until = built_from(self._target), recorded_until(source)
        if not self._target.file_uris() and not self._is_within(name, source, days):
            built, self.is_new = (self._origin(), 0), True  # another run has captured other days
        if built is None or built[0] != self._origin() or built[1] > until:
            return False
        if built[1] < until:
            self._engine.append(self._work, {name: built[1]}, self._marks(until))
        return True

    def replace(self, days: Days | None, rows: Mapping[str, int]) -> None:
        """Make ``days`` anew (None: everything); ``rows`` are the source's rows per partition."""
        self._engine.replace(self._work, days, rows, self._replaced(days))

    def _replaced(self, days: Days | None) -> dict[str, int]:
        """What to note with a replacement: whether the star table now holds a row for each version, up to when."""
        if not self._work.query.is_row_by_row or days is None:
            return {}
        ((name, source),) = self._sources.items()
        built, until = built_from(self._target), recorded_until(source)
        if built == (self._origin(), until) or self._is_within(name, source, days):
            return self._marks(until)
        return {_MADE_OF: 0}

    def _is_within(self, name: str, source: DeltaTable, days: Days | None) -> bool:
        """Whether all versions of a source are of ``days``."""
        return days is None or lies_within(source, str(self._work.catalogue.source[name].day_column), days)

    def _marks(self, until: int) -> dict[str, int]:
        return {_MADE_OF: self._origin(), RECORDED: until}

    def _origin(self) -> int:
        """A number for the SELECT and the very table of versions that it reads."""
        digest = _digest(_definition(self._table), *(str(each.metadata().id) for each in self._sources.values()))
        return int(digest[:15], 16)

    def rows(self, keys: Sequence[str]) -> dict[str, int]:
        """Rows that the star table holds now on the days from the first of ``keys`` to the last, by partition."""
        if not self._table.day_column:
            held = register(self._work.connection, "star_held", self._target)
            return {WHOLE: int(self._work.connection.execute(f"SELECT count(*) FROM {held}").fetchall()[0][0])}
        days = DayRange(date.fromisoformat(keys[0]), date.fromisoformat(keys[-1]))
        column, day = self._table.day_column, quoted(self._table.day_column)
        held = register(self._work.connection, "star_held", self._target, days, column=column)
        within = f"{day} BETWEEN DATE '{days.first}' AND DATE '{days.last}'"
        found = self._work.connection.execute(
            f"SELECT {day}, count(*) FROM {held} WHERE {within} GROUP BY 1"
        ).fetchall()
        return {each.isoformat(): count for each, count in found}
