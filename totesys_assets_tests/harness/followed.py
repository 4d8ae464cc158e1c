"""A ToteSys whose log is followed into a lake, beside the model, which sees every commit.

Belongs here: making it, refreshing the lake from it, and comparing the lake's versions with the model's. Does not
belong here: what is written to it, and what goes wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from totesys_assets import engine
from totesys_assets.capture.changes import is_stale
from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.capture.difference import Captured, capture
from totesys_assets.capture.following import begin
from totesys_assets.capture.journal import Journal
from totesys_assets.capture.ledger import Ledger
from totesys_assets.capture.log_notes import read_note
from totesys_assets.capture.lost_ledger import ingestion_name, is_gone, missing_entries
from totesys_assets.catalogue.catalogue import COMMIT_LSN, OPERATION, RECORDED_AT, ddl
from totesys_assets.days import WHOLE, days_of, partition_range
from totesys_assets.lake.read import register
from totesys_assets.lake.tables import INGESTION, Lake
from totesys_assets.source.interface import SourceSnapshot
from totesys_assets.source.totesys import Totesys
from totesys_assets.source.totesys.log import Log
from totesys_assets.staleness.look import follow_from_here, told_by_log
from totesys_assets_tests.harness.model import Model, Place
from totesys_assets_tests.harness.source import BY_DAY, COLUMNS, is_dead, read
from totesys_assets_tests.harness.sql_files import apply
from totesys_assets_tests.harness.world import DAYS, Tally, trade

Row = dict[str, str | None]


@dataclass
class Versions:
    """The versions of one row on one day, as the lake has them: operation, values as text, position in the log."""

    operations: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    positions: list[int | None] = field(default_factory=list)
    moments: list[datetime] = field(default_factory=list)


class Followed:
    """ToteSys at ``url``, followed into a lake in ``folder``."""

    def __init__(self, url: str, folder: Path, first_day: date) -> None:
        self.source_url, self.first_day, self.days = url, first_day, partition_range(first_day)
        self.lake, self.log = Lake(str(folder)), Log(url)
        self.totesys = Totesys(url, allow_superuser=True, log=self.log)
        self.tally, self.model = Tally(), Model(self.days)

    def run(self, *statements: str) -> None:
        """Run each statement in a transaction of its own, and let the model see it."""
        for statement in statements:
            with psycopg.connect(self.source_url, autocommit=True) as connection:
                connection.execute(statement.encode())
            self.wrote()

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of a query in ToteSys."""
        with psycopg.connect(self.source_url) as connection:
            return connection.execute(query.encode()).fetchall()

    def wrote(self) -> None:
        """Let the model see what is committed now. It sees every commit if this is called after each."""
        state = read(self.source_url)
        for table in COLUMNS:
            self.model.capture(table, None, state)

    def refresh(self, *, full: bool = False) -> dict[str, Captured]:
        """Look, and capture what is stale; ``full``: compare everything."""
        begin(self.lake, self.log)
        with self.totesys.snapshot() as snapshot:
            return {name: done for name in self.totesys.tables if (done := self.capture(snapshot, name, full=full))}

    def capture(self, snapshot: SourceSnapshot, name: str, *, full: bool = False) -> Captured | None:
        """Bring one table to what the snapshot shows, if it is stale."""
        table, newest = self.totesys.tables[name], Ledger(self.lake).newest()
        told = told_by_log(snapshot, self.lake, table, self.days, newest, self.lake.find(INGESTION, name))
        found = told if told is not None else snapshot.changed_fingerprints(table, self.days)
        follow_from_here(self.lake, table, snapshot, found, newest)
        held, newest = self.lake.find(INGESTION, name), Ledger(self.lake).newest()
        known = {} if is_gone(held, name, newest) else newest.get(ingestion_name(table), {})
        known = known | missing_entries(self.lake, table, held, newest)
        stale = sorted(key for key in found.keys() | known.keys() if is_stale(key, found, known))
        if not stale and not full and self.lake.find(INGESTION, name) is not None:
            return None
        days = (self.days if full else days_of(stale or [str(self.days.last)])) if table.day_column else None
        return capture(
            snapshot,
            self.lake,
            table,
            all_days=self.days,
            days=days,
            run_id="a run",
            changes_only=not full,
            accept_deletions=True,
        )

    def missed(self) -> int:
        """What a comparison of everything finds that the log did not tell of."""
        return sum(each.total("missed") for each in self.refresh(full=True).values())

    @property
    def is_on(self) -> bool:
        """Whether the log is followed."""
        return Journal(self.lake, "public", COLUMNS).stretch != 0

    @property
    def why_not(self) -> str:
        """Why the log is not followed."""
        note = read_note(self.lake)
        return note.loss.why if note.loss is not None and note.since is None else ""

    def versions(self, name: str) -> dict[Place, Versions]:
        """The lake's versions of a table, by key and day."""
        held = self.lake.find(INGESTION, name)
        found: defaultdict[Place, Versions] = defaultdict(Versions)
        if held is None:
            return found
        columns = ", ".join(f'CAST("{column}" AS VARCHAR)' for column in COLUMNS[name])
        with engine.session() as connection:
            rows = connection.execute(
                f"SELECT {OPERATION}, {COMMIT_LSN}, epoch_us({RECORDED_AT}), {columns} FROM "
                f"{register(connection, 'held', held)} ORDER BY {RECORDED_AT}, {OPERATION} <> 'delete'"
            ).fetchall()
        for operation, position, moment, *values in rows:
            row = dict(zip(COLUMNS[name], values, strict=True))
            here = found[values[0], str(row["created_at"])[:10] if name in BY_DAY else WHOLE]
            here.operations.append(operation)
            here.positions.append(position)
            here.rows.append(row)
            here.moments.append(datetime.fromtimestamp(moment / 1_000_000, UTC))
        return found

    def differing(self) -> list[tuple[str, Place]]:
        """The rows of which the lake does not hold just the versions that were committed, in their order."""
        wrong = []
        for name in COLUMNS:
            held, expected = self.versions(name), self.model.tables[name].versions
            for place in held.keys() | expected.keys():
                here = held.get(place, Versions())
                there = [(each.operation, dict(each.row)) for each in expected.get(place, [])]
                if list(zip(here.operations, here.rows, strict=True)) != there:
                    wrong.append((name, place))
        return wrong

    def letters_differing(self) -> set[tuple[str, str]]:
        """The rows that are dead letters in the lake or the source only."""
        state = read(self.source_url)
        dead = {(name, key) for name in COLUMNS for key, row in state[name].items() if is_dead(name, row, self.days)}
        noted = open_dead_letters(self.lake).select(["table_name", "row_key"]).to_pylist()
        return dead ^ {(row["table_name"], row["row_key"]) for row in noted if row["table_name"] in COLUMNS}


@contextmanager
def followed(url: str, folder: Path) -> Iterator[Followed]:
    """A new ToteSys with the hand-made trade in the empty database at ``url``, followed from the first refresh on."""
    first_day = datetime.now(UTC).date() - timedelta(days=DAYS)
    with psycopg.connect(url) as connection:
        connection.execute(ddl("totesys.sql").encode())
        connection.execute(trade(first_day).encode())
        connection.execute("ALTER TABLE design ALTER file_location SET STORAGE EXTERNAL")
    apply("source_reader.sql", url)
    apply("source_log.sql", url)
    made = Followed(url, folder, first_day)
    try:
        made.wrote()
        made.refresh()
        yield made
    finally:
        made.log.finish()
        made.log.close()
