"""Loading a star table: staged, then merged on its key, in one transaction that also notes what was loaded.

Belongs here: which rows are merged, and the notes. Does not belong here: the statements of the merge (merge.py), and
the tables' definition, which is the catalogue's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from totesys_assets import engine
from totesys_assets.capture.ledger import Ledger
from totesys_assets.catalogue.catalogue import RECORDED_AT, Table
from totesys_assets.catalogue.queries import query_of
from totesys_assets.days import WHOLE, Days
from totesys_assets.errors import ConcurrentWriters, PlatformError
from totesys_assets.lake.commit import LostRace
from totesys_assets.lake.read import lies_within, moment_sql, register
from totesys_assets.lake.tables import PROCESSED, Lake
from totesys_assets.load.adopt import adopt, newest
from totesys_assets.load.changed import changes, version_loaded, version_note
from totesys_assets.load.copying import Copy, filled, is_to_be_filled, paths
from totesys_assets.load.distinct import is_doubled
from totesys_assets.load.followed import note_followed
from totesys_assets.load.letters import note_letters
from totesys_assets.load.merge import merge, require_distinct, written
from totesys_assets.load.noted import held_of, loaded_until, note, notes_of
from totesys_assets.load.of_days import by_month, rows_of_days, within_days
from totesys_assets.load.origin import Origin, change_of, open_sources, refuse_as_of, sources_of
from totesys_assets.sql_text import quoted
from totesys_assets.stages import LOAD, stage
from totesys_assets.transform.build import processed_name
from totesys_assets.warehouse.bare import is_filling
from totesys_assets.warehouse.notes import LAKE, NEWEST
from totesys_assets.warehouse.warehouse import Warehouse, rows, run

log = logging.getLogger(__name__)
_ATTEMPTS = 5


@dataclass(frozen=True)
class Loaded:
    """What one load of one table did: rows per partition in the star, and rows written in the warehouse.

    Not ``needed``: what is one set was there already, row for row.
    """

    rows: dict[str, int]
    written: int
    needed: bool = True


def load(
    warehouse: Warehouse,
    lake: Lake,
    table: Table,
    *,
    days: Days | None,
    run_id: str,
    changes_only: bool = False,
    adopt_lake: bool = False,
    copy: Copy | None = None,
    patience: float | None = None,
) -> Loaded:
    """Bring the warehouse's ``table`` up to the lake's star table, for ``days`` (None: the whole table).

    ``changes_only``: what was loaded before is believed in; of a table to which rows are only ever added, those are
    loaded that were recorded since, on whatever day they are, and of a mart those that are others than at its last
    load. Else all rows of the days are compared.
    ``adopt_lake``: go on with this lake if it is not the one that was loaded from before (adopt.py).
    ``copy``: the star's rows as they were copied along with their capture; committed if they are all that it has.
    ``patience``: for how many seconds it waits while others load the table, if not as long as loads usually do.
    One transaction: readers see all of it or nothing. Doing it twice changes nothing. Raises LakeChanged where another
    lake is not to be adopted, PlatformError.
    """
    may_fill = True
    for _ in range(_ATTEMPTS):
        warehouse.migrate()  # also after a copy that could not put on again what it had taken off
        with (
            stage(LOAD),
            engine.readable_errors(f'Loading "{table.name}" failed, and will be done again by the next refresh'),
        ):
            if copy is not None:
                loaded, copy = _commit_copy(copy, warehouse, lake, table, run_id), None
                if loaded is not None:
                    return loaded
                continue
            try:
                with warehouse.transaction(table.name, patience=patience) as connection:
                    work = _Load(connection, warehouse, lake, table, run_id)
                    if may_fill and work.is_first and is_to_be_filled(work.star, table):
                        raise _FillFirst
                    loaded = work.merge(days if table.day_column else None, changes_only, adopt_lake=adopt_lake)
                    _note_others(connection, warehouse, lake, table)
                    return loaded
            except LostRace:  # for the lake's note of an adoption, and nothing was committed
                continue
            except _FillFirst:
                copy, may_fill = filled(warehouse, table, work.star, patience), False
    raise ConcurrentWriters(
        f'Other refreshes captured what "{table.name}" is made of {_ATTEMPTS} times while this one adopted the lake. '
        "Nothing is lost; refresh again."
    )


def _commit_copy(copy: Copy, warehouse: Warehouse, lake: Lake, table: Table, run_id: str) -> Loaded | None:
    """End the transaction of ``copy`` with its notes; None where it does not hold what is to be loaded."""
    try:
        loaded = _Load(copy.connection, warehouse, lake, table, run_id).take(copy)
        if loaded is not None:
            _note_others(copy.connection, warehouse, lake, table)
            copy.commit()
            return loaded
    except (PlatformError, duckdb.Error) as error:  # the load itself meets it again, and tells
        log.info("%s is not loaded from what was copied: %s", table.asset, engine.one_line(error))
    finally:
        copy.abandon()
        if copy.is_left_bare:
            warehouse.forget_migration()
    return None


def _note_others(connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, lake: Lake, table: Table) -> None:
    note_letters(connection, warehouse, lake, table)
    note_followed(connection, warehouse, lake, table)


class _FillFirst(Exception):
    """The table is to be filled with its keys behind the rows, which begins before its transaction."""


class _Load:
    """One load of one table in one transaction, begun after its lock was taken."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, lake: Lake, table: Table, run_id: str
    ) -> None:
        self._connection, self._warehouse, self._table, self._run_id = connection, warehouse, table, run_id
        self._lake = lake
        # After the lock: what is read now is at least as new as what its last holder loaded. The order matters: the
        # states, then the rows, then what they are made of, so that what is noted of rows is never newer than they
        # are, and what is noted of the lake never older.
        self._states = Ledger(lake).newest([processed_name(table)]).get(processed_name(table), {})
        star = lake.find(PROCESSED, table.name)
        if star is None:
            raise PlatformError(
                f'"{table.name}" was never built in this lake. '
                f"Materialise {table.asset} first, or run: totesys refresh."
            )
        self.star = star
        self._sources = sources_of(lake, table)
        self._loaded = notes_of(connection, warehouse, table)
        self._noted = Origin.parse(self._loaded[LAKE][0]) if LAKE in self._loaded else None
        # A table of before this was noted, or a new one: where the facts came from tells where it would have.
        expected = self._noted or self._origin_of_facts()
        refuse_as_of([expected], warehouse.schema)
        found = self._sources if expected is self._noted else open_sources(lake, expected.tables)
        self._change = change_of(expected, found, lake, warehouse)

    def _origin_of_facts(self) -> Origin:
        """Of facts without a note, the newest record is the lake's newest version of then."""
        # Locks on the facts end with the savepoint: other loads may be about to make their keys.
        run(self._connection, "SAVEPOINT origin")
        tables: dict[str, tuple[str, int]] = {}
        as_of = 0
        for fact in self._warehouse.catalogue.star.values():
            if not fact.is_fact:
                continue
            noted = notes_of(self._connection, self._warehouse, fact).get(LAKE)
            name = f"{quoted(self._warehouse.schema)}.{quoted(fact.name)}"
            if noted is not None:
                origin = Origin.parse(noted[0])
                tables, as_of = tables | origin.tables, as_of or origin.as_of
            # To find that nobody sees a row of a table that is being filled takes as long as to read it.
            elif rows(self._connection, is_filling(self._warehouse.schema, fact)) == [(1,)]:
                continue
            elif moment := newest(self._connection, fact, name):
                tables |= dict.fromkeys(query_of(fact.name).sources, ("", moment))
        run(self._connection, "ROLLBACK TO SAVEPOINT origin")
        return Origin(tables, as_of=as_of)

    @property
    def is_first(self) -> bool:
        """Whether nothing was ever loaded into the table, nor from another lake into others."""
        return self._change is None and not self._loaded

    def merge(self, days: Days | None, changes_only: bool, *, adopt_lake: bool) -> Loaded:
        """``load``, but for the lock and the commit."""
        if self._change is not None and not adopt_lake:
            raise self._change
        if self._change is not None:
            return self._adopt()
        whole = self._states.get(WHOLE)
        if changes_only and whole is not None and self._loaded.get(WHOLE) == (whole.content, whole.rows):
            return Loaded({WHOLE: whole.rows}, 0, needed=False)
        if self._table.is_mart:
            return self._replace(days, changes_only=changes_only)
        adopted = self._noted.adopted if self._noted and self._table.is_fact else 0
        origin, until = held_of(self.star)
        since = loaded_until(self._loaded, origin, until) if changes_only else None
        keys = days.keys if days is not None else [WHOLE]
        if since is None:
            rows = rows_of_days(self._connection, self.star, self._table, days)
            if adopted:
                rows = f"(SELECT * FROM {rows} AS star WHERE {RECORDED_AT} > {moment_sql(adopted)})"
            covered = (
                days is not None and self._table.day_column and lies_within(self.star, self._table.day_column, days)
            )
        else:
            after = max(since, adopted)
            held = register(self._connection, "star_files", self.star, since=after)
            rows = f"(SELECT * FROM {held} WHERE {RECORDED_AT} > {moment_sql(after)})"
            keys, covered = [*dict.fromkeys([*keys, *self._states])], True
        one_per_key = not self._table.is_fact and not is_doubled(self._connection, self._table, rows)
        chunks = by_month(self.star, self._table)
        written = merge(self._connection, self._warehouse, self._table, rows, chunks, one_per_key=one_per_key)
        notes = self._notes(keys, self._lake_now())
        if origin and covered:
            notes[NEWEST] = (f"{origin} {until}", 0)
        return self._done(notes, written)

    def take(self, copy: Copy) -> Loaded | None:
        """``merge`` of rows that are in the transaction already. None if they are not the star's, or not its first."""
        origin, until = held_of(self.star)
        if not self.is_first or paths(self.star) != copy.files or not (origin or self._table.is_mart):
            return None
        copy.complete(self.star)
        notes = self._notes([*self._states], self._lake_now())
        newest = version_note(self.star, self._loaded | notes) if self._table.is_mart else f"{origin} {until}"
        notes[NEWEST] = (newest, 0)
        return self._done(notes, copy.rows)

    def _replace(self, days: Days | None, *, changes_only: bool) -> Loaded:
        """``merge`` of a mart. What is noted of its rows is about all of them, or there is no such note."""
        connection, table, star, gone = self._connection, self._table, self.star, None
        keys = days.keys if days is not None else [WHOLE]
        before = version_loaded(self._lake, table, star, self._loaded)
        if before is not None and changes_only:
            rows, gone = changes(connection, table, before, star)
            require_distinct(connection, table, "mart_now")
            keys, is_whole = [*dict.fromkeys([*keys, *self._states])], True
        else:
            rows = rows_of_days(connection, star, table, days)
            require_distinct(connection, table, rows)
            is_whole = self._states.keys() <= set(keys) and not self._has_others(days)
        written = merge(connection, self._warehouse, table, rows, within=within_days(table, days), gone=gone)
        notes = self._notes(keys, self._lake_now())
        # Where nothing was written, it still has the rows of that version: a load that finds nothing leaves no trace.
        now = before if before is not None and not written else star if is_whole else None
        if now is not None:
            notes[NEWEST] = (version_note(now, self._loaded | notes), 0)
        return self._done(notes, written)

    def _has_others(self, days: Days | None) -> bool:
        """Whether the lake's table has rows that are not of ``days``. There may be some of which no state tells yet."""
        every = register(self._connection, "star_files_of_all_days", self.star)
        others = f"SELECT 1 FROM {every} WHERE NOT {within_days(self._table, days)} LIMIT 1"
        return self._connection.execute(others).fetchone() is not None

    def _lake_now(self) -> Origin:
        return Origin.of(self._sources, self._noted.adopted if self._noted else 0)

    def _adopt(self) -> Loaded:
        sources = {name: found for name, found in self._sources.items() if found is not None}
        if len(sources) < len(self._sources) and self._change is not None:
            raise self._change  # there is nothing to go on with
        adopted = adopt(self._connection, self._warehouse, self._table, sources)
        name = f"{quoted(self._warehouse.schema)}.{quoted(self._table.name)}"
        count = written(self._connection, name)
        notes, (origin, until) = self._notes([*self._states], adopted), held_of(self.star)
        if origin:
            notes[NEWEST] = (f"{origin} {until}", 0)
        return self._done(notes, count)

    def _notes(self, keys: Sequence[str], lake: Origin) -> dict[str, tuple[str, int]]:
        """What to note of the lake and of those partitions ``keys`` that have a state."""
        entries = [self._states[key] for key in keys if key in self._states]
        return {entry.partition: (entry.content, entry.rows) for entry in entries} | {LAKE: (lake.text, 0)}

    def _done(self, notes: dict[str, tuple[str, int]], written: int) -> Loaded:
        if self._table.is_mart and NEWEST in self._loaded:
            notes.setdefault(NEWEST, ("", 0))  # the rows of some days are not those of the version that was noted
        note(self._connection, self._warehouse, self._table, notes, self._loaded, self._run_id)
        return Loaded({each: rows for each, (_, rows) in notes.items() if each not in (LAKE, NEWEST)}, written)
