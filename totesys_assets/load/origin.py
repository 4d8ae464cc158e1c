"""The origin of a warehouse table: which lake it was loaded from, and up to which moment.

Belongs here: the note that every load writes and the next one reads, and comparing a lake with it. Does not belong
here: going on with another lake, which is adopt.py.

A lake is identified by its tables of versions. Each has an id, and holds a version recorded at exactly the microsecond
up to which it was loaded. If either is not so, it is another lake, or it was set back and captured again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import duckdb
from deltalake import DeltaTable

from totesys_assets.catalogue.catalogue import RECORDED_AT, Table
from totesys_assets.catalogue.queries import query_of
from totesys_assets.errors import LakeChanged, PlatformError
from totesys_assets.lake.marks import mark
from totesys_assets.lake.read import holds_moment, moment_sql, recorded_until, register, since_1970
from totesys_assets.lake.tables import INGESTION, LEDGER, Lake
from totesys_assets.sql_text import literal, quoted
from totesys_assets.warehouse.warehouse import Warehouse

log = logging.getLogger(__name__)

Found = Mapping[str, DeltaTable | None]


@dataclass(frozen=True)
class Origin:
    """Of one table of the warehouse: the tables of versions that it was loaded from, with their ids and newest moments.

    Moments are in microseconds since 1970. ``adopted``: versions up to this moment were never loaded one by one; what
    the warehouse held then was brought to agree with them. 0: the lake was not adopted. ``as_of``: the table
    shows what had been recorded by this moment, and is not to go on. 0: it goes on.
    """

    tables: dict[str, tuple[str, int]]
    adopted: int = 0
    as_of: int = 0

    @property
    def text(self) -> str:
        """As it is noted."""
        as_of = {"as_of": self.as_of} if self.as_of else {}
        return json.dumps({"adopted": self.adopted, **as_of, "tables": self.tables}, sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Origin:
        """Of a note."""
        noted = json.loads(text)
        tables = {name: (known, moment) for name, (known, moment) in noted["tables"].items()}
        return cls(tables, noted["adopted"], noted.get("as_of", 0))

    @classmethod
    def of(cls, found: Found, adopted: int = 0) -> Origin:
        """Of tables that were opened before, or after, the rows that are loaded were read: never of a state before."""
        there = {name: table for name, table in found.items() if table is not None}
        return cls({name: (str(table.metadata().id), recorded_until(table)) for name, table in there.items()}, adopted)


def open_tables(lake: Lake, zone: str, names: Iterable[str]) -> dict[str, DeltaTable | None]:
    """The lake's tables of a zone by name, None for those that are not there. At once: each is asked of a bucket."""
    listed = list(names)
    with ThreadPoolExecutor(max_workers=max(1, len(listed))) as threads:
        return dict(zip(listed, threads.map(lambda name: lake.find(zone, name), listed), strict=True))


def open_sources(lake: Lake, names: Iterable[str]) -> dict[str, DeltaTable | None]:
    """The lake's tables of versions: see ``open_tables``."""
    return open_tables(lake, INGESTION, names)


def sources_of(lake: Lake, table: Table) -> dict[str, DeltaTable | None]:
    """The tables of versions that star ``table`` is made of."""
    return open_sources(lake, query_of(table.name).sources)


def adopted_mark(moment: int) -> str:
    """Name of the note in a lake's table that it was adopted at ``moment``, of which it holds no version."""
    return f"adopted:{moment}"


def require_known_lake(warehouse: Warehouse, lake: Lake, opened: Found | None = None) -> None:
    """Refuse a lake that shows at a glance that it is not the one that the warehouse was loaded from.

    Ids and newest moments only, before anything is read or written; ``opened``: its tables of versions, where they are
    open. Raises LakeChanged, also as ``refuse_as_of`` does.
    """
    _require_known(_noted(warehouse), warehouse, lake, opened or {})


def _noted(warehouse: Warehouse) -> list[Origin]:
    return [Origin.parse(text) for text in warehouse.origins().values()]


def _require_known(noted: list[Origin], warehouse: Warehouse, lake: Lake, known: Found) -> None:
    refuse_as_of(noted, warehouse.schema)
    names = sorted({name for origin in noted for name in origin.tables})
    found = {**known, **open_sources(lake, [name for name in names if name not in known])}
    if names and all(found[name] is None for name in names) and lake.find(LEDGER) is None:
        raise _refusal(
            f"{_named(warehouse)} was loaded from a lake, and the place {lake.uri} has none",
            "If it is only away, as a disk that is not mounted, bring it back: then all goes on. Else give",
        )
    for origin in noted:
        if (change := change_of(origin, found, lake, warehouse, exactly=False)) is not None:
            raise change


def refuse_to_begin_anew(lake: Lake, warehouse: Warehouse, *, needs_warehouse: bool = True) -> None:
    """From now on make no table in the place of a lake that went away, as a disk does that is not mounted.

    What would make one raises LakeChanged, as ``require_known_lake`` does. Where the warehouse cannot be asked, it
    raises PlatformError if it ``needs_warehouse``; else the table is made.
    """

    def ask() -> None:
        try:
            noted = _noted(warehouse)
        except PlatformError as problem:
            if needs_warehouse:
                raise
            log.info("whether a lake may begin was not asked: %s", problem)
        else:
            _require_known(noted, warehouse, lake, {})

    lake.may_begin = ask


def refuse_as_of(noted: Iterable[Origin], schema: str) -> None:
    """Raise LakeChanged if the schema is a star as it was: nothing is loaded into that, from whatever lake."""
    if moment := max((origin.as_of for origin in noted), default=0):
        raise LakeChanged(
            f'Schema "{schema}" of the warehouse is the star as it was recorded at '
            f"{since_1970(moment):%Y-%m-%d %H:%M:%S} UTC, and stays so. So nothing is loaded. Let WAREHOUSE_SCHEMA "
            "name the schema of the warehouse itself, or a new one."
        )


def change_of(
    noted: Origin, found: Found, lake: Lake, warehouse: Warehouse, *, exactly: bool = True
) -> LakeChanged | None:
    """What is to be said if the lake is not as ``noted``; ``exactly``: its versions are looked at, too."""
    schema = _named(warehouse)
    for name, (known, moment) in noted.tables.items():
        table = found.get(name)
        if table is None:
            what = f'{schema} was loaded from a lake with versions of "{name}", and the lake at {lake.uri} has none'
        elif known and known != str(table.metadata().id):
            what = f"{schema} was loaded from another lake than the one at {lake.uri}"
        elif recorded_until(table) < moment or (exactly and not _holds(table, moment)):
            until = since_1970(moment)
            what = (
                f'{schema} was loaded from versions of "{name}" up to {until:%Y-%m-%d %H:%M:%S} UTC, and the lake at '
                f"{lake.uri} does not hold those of that moment: it was set back, or is another"
            )
        else:
            continue
        return _refusal(what, "Give")
    return None


def _named(warehouse: Warehouse) -> str:
    return f'Schema "{warehouse.schema}" of the warehouse'


def _refusal(what: str, give: str) -> LakeChanged:
    return LakeChanged(
        f"{what}. So nothing is loaded. {give} the platform that lake again (LAKE_URI, or its backup), or a schema of "
        "its own to this one (WAREHOUSE_SCHEMA), or go on with both: `totesys refresh --adopt-lake` keeps every record "
        "of the warehouse and adds those in which its current rows differ from the lake's."
    )


def _holds(table: DeltaTable, moment: int) -> bool:
    """True when a version was recorded at ``moment``, or the table was adopted then. The files' bounds show where."""
    if not moment or recorded_until(table) == moment or mark(table, adopted_mark(moment)) is not None:
        return True
    return holds_moment(table, moment)


def newest_at(connection: duckdb.DuckDBPyConnection, found: Found, moment: int) -> Origin:
    """``Origin.of`` the tables as they were at ``moment``."""
    tables = {}
    for name, table in found.items():
        if table is not None:
            versions = register(connection, f"dated_{name}", table)
            query = f"SELECT epoch_us(max({RECORDED_AT})) FROM {versions} WHERE {RECORDED_AT} <= {moment_sql(moment)}"
            tables[name] = (str(table.metadata().id), int(connection.execute(query).fetchall()[0][0] or 0))
    return Origin(tables, as_of=moment)


def moment_literal(moment: int) -> str:
    """A moment in microseconds since 1970 as an SQL literal, for PostgreSQL and DuckDB alike."""
    return f"TIMESTAMPTZ {literal(f'{since_1970(moment):%Y-%m-%d %H:%M:%S.%f}+00')}"


def comparable(table: Table, adopted: int) -> str:
    """SQL condition of the rows that lake and warehouse must have alike, for PostgreSQL and DuckDB.

    Of an adopted lake, what was recorded later; of a dimension also what is older and present. A calendar has no such
    columns: what days the warehouse has more is not told by them.
    """
    if not adopted or RECORDED_AT not in table.by_name:
        return "true"
    later = f"{quoted(RECORDED_AT)} > {moment_literal(adopted)}"
    return later if table.is_fact else f"(NOT {quoted('_is_deleted')} OR {later})"
