"""What an audit observes: source, lake and warehouse, each as of one instant, and what of them waits for a refresh.

Belongs here: opening the three, reading digests of their rows, telling what is pending. Does not belong here: which
sets must be equal (source_lake.py, star.py). None of the capture's, build's and load's code for reading rows is used.

The sources go on while they are audited. So the warehouse is read first, then the ledger, the lake, and the sources: a
partition whose states agree along the whole chain at the end was not touched in between, and must be equal
everywhere. The others are pending, counted, and left to the next refresh.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import duckdb
import psycopg
from deltalake import DeltaTable
from psycopg import sql

from totesys_assets import engine
from totesys_assets.audit.digests import Comparison, Digests, compare
from totesys_assets.audit.findings import Finding
from totesys_assets.capture.beside import committed
from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.capture.following import reach
from totesys_assets.capture.generation import assign_generation
from totesys_assets.capture.how_far import how_far
from totesys_assets.capture.journal import edition
from totesys_assets.capture.ledger import Ledger
from totesys_assets.catalogue.catalogue import Column, Table
from totesys_assets.catalogue.queries import query_of
from totesys_assets.days import WHOLE
from totesys_assets.digest import row_number, set_digest
from totesys_assets.errors import LakeChanged, PlatformError
from totesys_assets.lake.tables import INGESTION, JOURNAL
from totesys_assets.load.origin import Origin, change_of, refuse_as_of
from totesys_assets.names import MADE
from totesys_assets.platform import Platform
from totesys_assets.source.interface import Fingerprint, SourceSnapshot
from totesys_assets.source.rows import row_id, row_key
from totesys_assets.source.shared_snapshot import OpenSnapshots, own_faults
from totesys_assets.sql_text import literal, quoted
from totesys_assets.staleness.decide import stale_partitions
from totesys_assets.staleness.look import Look, mark_when_done, told_by_log
from totesys_assets.warehouse.notes import Notes

# The audit waits for itself: while one side is read, the others' transactions stand idle, and a timeout that the login
# was given would end them.
_SESSION = "SET LOCAL idle_in_transaction_session_timeout = 0"


class Observed:
    """All three as they were at one moment each. ``stack`` ends the sessions.

    ``marks`` are those that the command line and the sensor keep, under which they take nothing to have changed.
    """

    def __init__(self, stack: ExitStack, platform: Platform, marks: Collection[str] = ()) -> None:
        lake, warehouse = platform.lake, platform.warehouse
        self.catalogue, self.all_days, self.lake, self.schema = (
            platform.catalogue,
            platform.all_days,
            lake,
            warehouse.schema,
        )
        self._marks = marks
        self._mark_of = partial(_mark, platform)
        self._change_of = partial(change_of, lake=lake, warehouse=warehouse)
        self._mark_before = self._mark_of({})
        self.warehouse: psycopg.Connection[Any] = stack.enter_context(warehouse.connect(snapshot=True))
        self.warehouse.execute(_SESSION)
        self._loaded = warehouse.states(self.warehouse)
        self._origins = Notes(self.warehouse, self.schema).origins()
        refuse_as_of(map(Origin.parse, self._origins.values()), self.schema)
        if not self._loaded:
            raise PlatformError("Nothing was loaded into this warehouse yet. Run: totesys refresh.")
        self._ledger = Ledger(lake)
        self.totals = self._ledger.totals()
        self._journal = edition(lake.find(JOURNAL))
        self.noted = self._ledger.newest()
        self.versions: dict[str, DeltaTable] = {
            name: held for name in self.catalogue.source if (held := lake.find(INGESTION, name)) is not None
        }
        letters = open_dead_letters(lake).select(["table_name", "row_key"]).to_pylist()
        self.dead = {
            name: sorted({row["row_key"] for row in letters if row["table_name"] == name})
            for name in self.catalogue.source
        }
        self.engine = stack.enter_context(engine.session())
        self._opened = OpenSnapshots(platform.sources)
        stack.callback(self._opened.close)
        self._snapshots = {
            name: assign_generation(self._ledger, snapshot) for name, snapshot in self._opened.now.items()
        }
        self.problems = {
            table.name: self._opened.problems[table.group]
            for table in self.catalogue.source.values()
            if table.group in self._opened.problems
        }
        self._stale: dict[str, set[str]] = {}
        self._examine()

    def snapshot_of(self, table: Table) -> SourceSnapshot:
        """The snapshot of a source table's source."""
        return self._snapshots[table.group]

    def _reopen(self, source: str) -> None:
        """Go on with another snapshot of a source. One that is gone is not compared, unless it was the only."""
        try:
            self._snapshots[source] = assign_generation(self._ledger, self._opened.reopen(source))
        except PlatformError as gone:
            del self._snapshots[source]
            if not self._snapshots:
                raise
            for table in self.catalogue.source.values():
                if table.group == source:
                    what = f"Not compared: {table.source_title} went away during the audit. {gone}"
                    self.problems[table.name] = PlatformError(what)

    def _examine(self) -> None:
        """Find what is pending as the snapshots show it, and the tables that cannot be examined."""
        found: dict[str, dict[str, Fingerprint]] = {}
        for table in self.catalogue.source.values():
            if table.name in self.problems:
                continue
            try:
                what = f'"{table.name}" could not be examined'
                with own_faults(table.group, what), engine.readable_errors(what):
                    snapshot = self.snapshot_of(table)
                    told = self._told(table, snapshot)
                    found[table.name] = told if told is not None else snapshot.fingerprints(table, self.all_days)
            except PlatformError as problem:
                self.problems[table.name] = problem
                if isinstance(problem.__cause__, duckdb.Error):  # PostgreSQL refuses to go on with this snapshot
                    self._reopen(table.group)
                    self._examine()  # all of them, for the others must be as of one instant
                    return
        self._stale = stale_partitions(self.catalogue, found, self.noted, self._loaded)

    def _told(self, table: Table, snapshot: SourceSnapshot) -> dict[str, Fingerprint] | None:
        """Fingerprints as the log tells, of the lake's table as it is compared here; None where it does not tell.

        What was captured since is not believed to be there. The ledger does not tell all of a table that was captured
        between the openings of both, nor does a journal that has lost something since: then every partition that
        follows the log is pending.
        """
        held, noted = self.versions.get(table.name), how_far(self.noted, table)
        if held is None or noted is None or noted.commit != committed(held):
            return None
        reached = reach(self.lake, snapshot, table)
        if reached is None or reached.journal != self._journal:
            return None
        return told_by_log(snapshot, self.lake, table, self.all_days, self.noted, held)

    def recover(self) -> None:
        """After an error: a new snapshot of a source, if PostgreSQL refuses to go on with the one that there is."""
        for source, snapshot in list(self._snapshots.items()):
            try:
                snapshot.rows("SELECT 1")
            except duckdb.Error:
                self._reopen(source)
                self._examine()

    def is_marked(self) -> bool:
        """Whether a mark says that nothing was left to do in the very state that is observed here."""
        if not self._marks or self._mark_of({}) != self._mark_before:  # the lake or the warehouse went on in between
            return False
        return self._mark_of({name: each.instant for name, each in self._snapshots.items()}) in self._marks

    def adopted(self, table: Table) -> int:
        """Moment from which on the records of star ``table`` follow from the lake; 0 where they always did."""
        return Origin.parse(self._origins[table.name]).adopted if table.name in self._origins else 0

    def lake_changed(self, table: Table) -> LakeChanged | None:
        """Why no load goes on with this lake, if star ``table`` was loaded from another, or a later state of it.

        Of a lake that has lost a table of versions, ``nothing`` tells.
        """
        found = {name: self.versions.get(name) for name in query_of(table.name).sources}
        if table.name not in self._origins or None in found.values():
            return None
        return self._change_of(Origin.parse(self._origins[table.name]), found)

    def sources(self, asset: str) -> tuple[str, ...]:
        """The source tables that an asset is made of."""
        group, _, name = asset.partition("/")
        return (name,) if group not in MADE else query_of(name).sources

    def problem(self, asset: str) -> PlatformError | None:
        """Why what an asset is made of could not be examined, if it could not."""
        return next((self.problems[name] for name in self.sources(asset) if name in self.problems), None)

    # What is pending, and what is left

    def pending(self, asset: str) -> set[str]:
        """Partitions that wait for a refresh."""
        return self._stale.get(asset, set())

    def fed_by(self, table: Table) -> list[str]:
        """The assets that wait for a refresh and are made of a source table, that itself included."""
        return sorted(asset for asset in self._stale if table.name in self.sources(asset))

    def compare(self, asset: str, one: Digests, other: Digests) -> Comparison:
        """The partitions of both sides, but for what is pending."""
        return compare(one, other, self.pending(asset))

    def nothing(self, asset: str, check: str) -> Finding | None:
        """What to say where nothing of an asset was compared. None: both sides are there, and empty."""
        pending = len(self.pending(asset))
        if not pending:
            return None
        for name in self.sources(asset):
            if reason := self._lost(name):
                detail = f"nothing was compared: {reason}. If that is the lake to look at: totesys refresh"
                return Finding(asset, check, False, detail, pending)
        return Finding(
            asset, check, False, "nothing was compared: all of it waits for a refresh", pending, warning=True
        )

    def _lost(self, name: str) -> str | None:
        """What is missing of the lake, of a source table that was captured before."""
        entries = self.noted.get(f"{INGESTION}/{name}")
        if name in self.versions:
            lost = not entries and self.versions[name].file_uris()
            return f'the ledger of the lake at {self.lake.uri} notes nothing of "{name}"' if lost else None
        loaded = any(
            any(self._loaded.get(star, {}).values())
            for star in self.catalogue.star
            if query_of(star).sources[0] == name
        )
        return f'the lake at {self.lake.uri} holds no "{name}"' if entries or loaded or not self.noted else None

    # Rows of the source

    def alive_in_source(self, table: Table) -> str:
        """Condition that leaves out the dead letters, of which the lake holds the last good version, or none."""
        dead = ", ".join(literal(key) for key in self.dead[table.name])
        sent = self.snapshot_of(table).readable(table)  # what is not noted yet would end the transaction
        return f"{row_key(table)} NOT IN ({dead}) AND {sent}" if dead else sent

    def settled_in_source(self, table: Table, asset: str) -> str:
        """Condition that leaves out the dead letters, and what of ``asset`` is pending."""
        pending = ", ".join(literal(key) for key in sorted(self.pending(asset)))
        within = f" AND {self.snapshot_of(table).partition(table, self.all_days)} NOT IN ({pending})" if pending else ""
        return f"{self.alive_in_source(table)}{within}"

    def source_digests(self, table: Table, columns: Sequence[Column], asset: str) -> Digests:
        """Digest of ``columns`` over the rows of every partition that is not pending."""
        snapshot = self.snapshot_of(table)
        return dict(
            snapshot.rows(
                f"SELECT {snapshot.partition(table, self.all_days)} AS partition, "
                f"{set_digest(row_number(columns, snapshot.dialect))} AS digest "
                f"FROM {snapshot.relation(table)} WHERE {self.settled_in_source(table, asset)} GROUP BY 1"
            )
        )

    def source_rows(self, table: Table, condition: str) -> str:
        """DuckDB query of ``connection`` of the table's snapshot: key, partition and digest of rows that are alive."""
        snapshot = self.snapshot_of(table)
        rows = (
            f"SELECT {row_id(table)} AS row_key, {snapshot.partition(table, self.all_days)} AS partition, "
            f"{row_number(table.columns, snapshot.dialect)} AS digest FROM {snapshot.relation(table)} "
            f"WHERE {condition} AND {self.alive_in_source(table)}"
        )
        return snapshot.read(rows)

    # Rows of the warehouse

    def name(self, relation: str) -> str:
        """A relation of the warehouse, for its SQL."""
        return sql.Identifier(self.schema, relation).as_string(self.warehouse)

    def alive_in_warehouse(self, source: Table, key: str) -> str:
        """``alive_in_source`` for the warehouse, where the key may have another name."""
        dead = ", ".join(literal(each) for each in self.dead[source.name])
        return f"{quoted(key)}::text NOT IN ({dead})" if dead else "true"

    def warehouse_digests(self, query: str) -> Digests:
        """Partition and digest, the two columns of a query."""
        return {str(partition): str(digest) for partition, digest in self.warehouse.execute(query).fetchall()}


def _mark(platform: Platform, source: dict[str, str]) -> str | None:
    """The mark of ``source``, the instants, as the probe makes it: see staleness/look.py."""
    return mark_when_done(Look(source=source), platform)


def day_sql(table: Table) -> str:
    """DuckDB expression of a row's partition, as text."""
    return f"strftime({quoted(table.day_column)}, '%Y-%m-%d')" if table.day_column else literal(WHOLE)
