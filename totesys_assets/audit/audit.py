"""The audit itself: source, lake and warehouse read side by side, each as of one instant.

Belongs here: which sets must be equal, and reading them. Does not belong here: capture, build and load, none of whose
code for reading rows is used; how sets are digested (digest.py); rules of the business (rules.py).

ToteSys goes on while it is audited. So the warehouse is read first, then the ledger, then the lake, then the source:
a partition whose states agree along the whole chain at the end was not touched in between, and must be equal
everywhere. The others are pending, counted, and left to the next refresh.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from decimal import Decimal
from typing import Any

import psycopg
from deltalake import DeltaTable
from psycopg import sql

from totesys_assets.audit import rules
from totesys_assets.audit.findings import CONTENT, LEDGER, MONEY, RECORDS, REFERENCES, ROWS, Finding
from totesys_assets.automation.decide import TOTESYS, WAREHOUSE, stale_partitions
from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.capture.fingerprint import Fingerprint, fingerprints, partition_sql
from totesys_assets.capture.generation import settle
from totesys_assets.capture.ledger import Ledger
from totesys_assets.catalogue.catalogue import OPERATION, RECORDED_AT, Catalogue, Table
from totesys_assets.catalogue.star import star_query
from totesys_assets.days import WHOLE, DayRange, chunks
from totesys_assets.errors import PlatformError
from totesys_assets.resources import engine
from totesys_assets.resources.digest import DUCKDB, POSTGRES, row_number, set_digest
from totesys_assets.resources.engine import CHUNK_ROWS, literal, quoted
from totesys_assets.resources.lake import INGESTION, Lake, register
from totesys_assets.resources.totesys import READ, Snapshot, Totesys
from totesys_assets.resources.warehouse import Warehouse
from totesys_assets.transform.build import create_schemas, warehouse_rows

# What a fact is worth, in columns that have the same names in the source; and who says in which currency.
_MONEY = {
    "fact_sales_order": "units_sold * unit_price",
    "fact_purchase_order": "item_quantity * item_unit_price",
    "fact_payment": "payment_amount",
}
_CURRENCY = "currency_id"
# Keys named in a finding.
_EXAMPLES = 5

Digests = dict[str, str]


def checks(catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    """(asset, check) of everything that an audit looks at, but for the rules of the business."""
    for name in catalogue.source:
        yield f"{TOTESYS}/{name}", CONTENT
        yield f"{TOTESYS}/{name}", LEDGER
    for name, table in catalogue.star.items():
        yield f"{WAREHOUSE}/{name}", RECORDS
        if _mirrored(catalogue, table) is not None:
            yield f"{WAREHOUSE}/{name}", ROWS
        if name in _MONEY:
            yield f"{WAREHOUSE}/{name}", MONEY
        if any(column.references for column in table.columns):
            yield f"{WAREHOUSE}/{name}", REFERENCES


def audit(
    totesys: Totesys,
    lake: Lake,
    warehouse: Warehouse,
    days: DayRange,
    wanted: Iterable[tuple[str, str]] | None = None,
) -> list[Finding]:
    """Look at everything, or at the ``wanted`` pairs of asset and check. Changes nothing.

    A table that cannot be examined (drift, lost rights) fails its checks with the reason; the others are looked at all
    the same. Raises ConnectionFailed, and PlatformError before the first refresh.
    """
    with ExitStack() as stack:
        observed = _Observed(stack, totesys, lake, warehouse, days)
        chosen = list(wanted) if wanted is not None else [*checks(totesys.catalogue), *rules.checks()]
        return [observed.check(asset, check) for asset, check in chosen]


def _mirrored(catalogue: Catalogue, table: Table) -> Table | None:
    """The source table that has a row for each current row of star ``table``; the calendar has none."""
    first = catalogue.source[star_query(table.name).sources[0]]
    return first if table.is_fact or any(column.name == "_is_deleted" for column in table.columns) else None


class _Observed:
    """All three as they were at one moment each."""

    def __init__(self, stack: ExitStack, totesys: Totesys, lake: Lake, warehouse: Warehouse, days: DayRange) -> None:
        self._catalogue, self._days, self._schema = totesys.catalogue, days, warehouse.schema
        self._warehouse: psycopg.Connection[Any] = stack.enter_context(warehouse.connect())
        self._warehouse.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        loaded = warehouse.states(self._warehouse)
        if not loaded:
            raise PlatformError("Nothing was loaded into this warehouse yet. Run: totesys refresh.")
        ledger = Ledger(lake)
        noted = ledger.newest()
        self._totals = ledger.totals()
        self._rows = {
            name: {key: entry.rows for key, entry in noted.get(f"{INGESTION}/{name}", {}).items()}
            for name in self._catalogue.source
        }
        letters = open_dead_letters(lake).select(["table_name", "row_key"]).to_pylist()
        self._dead = {
            name: sorted({row["row_key"] for row in letters if row["table_name"] == name})
            for name in self._catalogue.source
        }
        self._versions: dict[str, DeltaTable] = {
            name: held for name in self._catalogue.source if (held := lake.find(INGESTION, name)) is not None
        }
        self._snapshot: Snapshot = settle(ledger, stack.enter_context(totesys.snapshot()))
        self._engine = engine.connect()
        stack.callback(engine.close, self._engine)
        self._problems: dict[str, PlatformError] = {}
        found: dict[str, dict[str, Fingerprint]] = {}
        for table in self._catalogue.source.values():
            try:
                with engine.readable_errors(f'"{table.name}" could not be examined'):
                    found[table.name] = fingerprints(self._snapshot, table, days)
            except PlatformError as problem:
                self._problems[table.name] = problem
        self._stale = stale_partitions(self._catalogue, found, noted, loaded)

    def check(self, asset: str, check: str) -> Finding:
        """One finding."""
        group, _, name = asset.partition("/")
        sources = (name,) if group == TOTESYS else star_query(name).sources
        for source in sources:
            if source in self._problems:
                return Finding(asset, check, False, str(self._problems[source]))
        if group == TOTESYS:
            table = self._catalogue.source[name]
            looks = {CONTENT: self._content, LEDGER: self._ledger}
            return looks[check](table) if check in looks else rules.examine(self._snapshot, table, check)
        table = self._catalogue.star[name]
        return {
            RECORDS: self._records,
            ROWS: self._current_rows,
            MONEY: self._money,
            REFERENCES: self._references,
        }[check](table)

    # The source and the lake

    def _content(self, table: Table) -> Finding:
        asset = f"{TOTESYS}/{table.name}"
        in_source = self._source_digests(table, row_number(table.columns, POSTGRES))
        in_lake: Digests = {}
        for piece in self._pieces(table):
            in_lake |= self._lake_digests(table, piece)
        pending, differing = self._compare(asset, in_source, in_lake)
        missed = self._totals.get(f"{INGESTION}/{table.name}", {})
        numbers: dict[str, int | str] = {
            "partitions_compared": len((in_source.keys() | in_lake.keys()) - self._stale.get(asset, set())),
            "partitions_differing": len(differing),
            "rows_missed": sum(self._rows_differing(table, partition) for partition in differing),
            "rows_missed_before": sum(total.missed for total in missed.values()),
        }
        detail = (
            f"{_rows(in_source)} rows, equal in every column"
            if not differing
            else (f"{numbers['rows_missed']} rows differ in {_some(differing)}: totesys refresh --full brings them in")
        )
        return Finding(asset, CONTENT, not differing, detail, pending, numbers)

    def _source_digests(self, table: Table, row: str) -> Digests:
        partition = partition_sql(table, self._days)
        query = (
            f"SELECT {partition} AS partition, {set_digest(row)} AS digest "
            f"FROM {quoted(table.name)} WHERE {self._alive_in_source(table)} GROUP BY 1"
        )
        return dict(self._snapshot.rows(query))

    def _alive_in_source(self, table: Table) -> str:
        """Condition that leaves out the dead letters, of which the lake holds the last good version, or none."""
        dead = ", ".join(literal(key) for key in self._dead[table.name])
        return f"{quoted(table.key)}::text NOT IN ({dead})" if dead else "true"

    def _pieces(self, table: Table) -> Iterator[DayRange | None]:
        if table.name not in self._versions:
            return
        yield from chunks(self._days, self._rows[table.name], CHUNK_ROWS) if table.day_column else [None]

    def _lake_rows(self, table: Table, piece: DayRange | None) -> str:
        """DuckDB query of the lake's current rows, with their partition: a row is known by its key within its day."""
        held = register(self._engine, f"audited_{table.name}", self._versions[table.name], piece)
        day = f"strftime({quoted(table.day_column)}, '%Y-%m-%d')" if table.day_column else literal(WHOLE)
        within = f"WHERE partition BETWEEN '{piece.first}' AND '{piece.last}'" if piece else ""
        self._engine.execute(
            "CREATE OR REPLACE TEMP TABLE dead AS SELECT unnest(CAST(? AS VARCHAR[])) AS row_key",
            [self._dead[table.name]],
        )
        return (
            f"SELECT * FROM (SELECT *, {day} AS partition FROM {held}) AS versions {within} "
            f"QUALIFY row_number() OVER (PARTITION BY {quoted(table.key)}, partition ORDER BY {RECORDED_AT} DESC) = 1 "
            f"AND {OPERATION} <> 'delete' AND CAST({quoted(table.key)} AS VARCHAR) NOT IN (SELECT row_key FROM dead)"
        )

    def _lake_digests(self, table: Table, piece: DayRange | None) -> Digests:
        digest = set_digest(row_number(table.columns, DUCKDB))
        query = f"SELECT partition, {digest} FROM ({self._lake_rows(table, piece)}) GROUP BY 1"
        return dict(self._engine.execute(query).fetchall())

    def _rows_differing(self, table: Table, partition: str) -> int:
        """Rows of one partition that are not the same on both sides, or only on one."""
        day = DayRange.of(partition) if table.day_column else None
        source = (
            f"SELECT {quoted(table.key)}::text AS row_key, {row_number(table.columns, POSTGRES)} AS digest "
            f"FROM {quoted(table.name)} WHERE {self._alive_in_source(table)} "
            f"AND {partition_sql(table, self._days)} = {literal(partition)}"
        )
        in_source = self._snapshot.connection.execute(READ, [source]).to_arrow_table()
        self._engine.register("in_source", in_source)
        if table.name not in self._versions:
            return in_source.num_rows
        row = self._engine.execute(
            f"SELECT count(*) FROM in_source FULL JOIN (SELECT CAST({quoted(table.key)} AS VARCHAR) AS row_key, "
            f"{row_number(table.columns, DUCKDB)} AS digest FROM ({self._lake_rows(table, day)})) AS in_lake "
            "USING (row_key) WHERE in_source.digest IS DISTINCT FROM in_lake.digest"
        ).fetchone()
        return int(row[0]) if row else 0

    def _ledger(self, table: Table) -> Finding:
        """More versions noted than held are versions lost; fewer noted are what a crash before the ledger leaves."""
        held: dict[str, int] = {}
        if table.name in self._versions:
            versions = register(self._engine, f"counted_{table.name}", self._versions[table.name])
            day = f"strftime({quoted(table.day_column)}, '%Y-%m-%d')" if table.day_column else literal(WHOLE)
            held = dict(self._engine.execute(f"SELECT {day}, count(*) FROM {versions} GROUP BY 1").fetchall())
        noted = self._totals.get(f"{INGESTION}/{table.name}", {})
        lost = {
            key: total.versions - held.get(key, 0) for key, total in noted.items() if total.versions > held.get(key, 0)
        }
        numbers: dict[str, int | str] = {
            "versions_held": sum(held.values()),
            "versions_noted": sum(total.versions for total in noted.values()),
        }
        detail = (
            f"{numbers['versions_held']:,} versions held"
            if not lost
            else (
                f"{sum(lost.values())} versions were noted and are not in the lake, in {_some(lost)}: "
                "restore the lake from its backup"
            )
        )
        return Finding(f"{TOTESYS}/{table.name}", LEDGER, not lost, detail, 0, numbers)

    # The lake and the warehouse

    def _records(self, table: Table) -> Finding:
        asset = f"{WAREHOUSE}/{table.name}"
        expected = self._expected_digests(table)
        day = f"{quoted(table.day_column)}::text" if table.day_column else literal(WHOLE)
        digest = set_digest(row_number(table.lake_columns, POSTGRES))
        held = self._held(f"SELECT {day}, {digest} FROM {self._name(table.name)} GROUP BY 1")
        pending, differing = self._compare(asset, expected, held)
        numbers: dict[str, int | str] = {"records": _total(held), "partitions_differing": len(differing)}
        detail = (
            f"{_rows(held)} records, equal in every column"
            if not differing
            else (
                f"the records differ from what follows from the lake, in {_some(differing)}: "
                "totesys replay makes them anew"
            )
        )
        return Finding(asset, RECORDS, not differing, detail, pending, numbers)

    def _expected_digests(self, table: Table) -> Digests:
        query = star_query(table.name)
        sources = {name: self._versions[name] for name in query.sources if name in self._versions}
        if len(sources) < len(query.sources):
            return {}
        day = f"strftime({quoted(table.day_column)}, '%Y-%m-%d')" if table.day_column else literal(WHOLE)
        digest = set_digest(row_number(table.lake_columns, DUCKDB))
        rows = warehouse_rows(table)
        expected: Digests = {}
        for piece in self._pieces(self._catalogue.source[query.sources[0]]) if table.is_fact else [None]:
            create_schemas(self._engine, self._catalogue, sources, piece)
            expected |= dict(self._engine.execute(f"SELECT {day}, {digest} FROM ({rows}) GROUP BY 1").fetchall())
        return expected

    # The source and the warehouse

    def _current_rows(self, table: Table) -> Finding:
        asset = f"{WAREHOUSE}/{table.name}"
        source = _mirrored(self._catalogue, table)
        assert source is not None  # noqa: S101 - checks() asks for no other
        key = source.by_name[source.key]
        in_source = self._source_digests(source, row_number([key], POSTGRES))
        name = table.version_key[0] if table.is_fact else table.key
        day = f"{quoted(table.day_column)}::text" if table.day_column else literal(WHOLE)
        held = self._held(
            f"SELECT {day}, {set_digest(row_number([key], POSTGRES, [name]))} FROM {self._current(table)} "
            f"WHERE {self._alive_in_warehouse(source, name)} GROUP BY 1"
        )
        pending, differing = self._compare(asset, in_source, held)
        settled = (in_source.keys() | held.keys()) - self._stale.get(asset, set())
        in_totesys = sum(_count(in_source, key) for key in settled)
        in_warehouse = sum(_count(held, key) for key in settled)
        detail = f"{in_totesys:,} rows in ToteSys, {in_warehouse:,} current in the warehouse"
        if differing:
            detail += f": they differ in {_some(differing)}"
        numbers: dict[str, int | str] = {"rows_in_totesys": in_totesys, "rows_in_warehouse": in_warehouse}
        return Finding(asset, ROWS, not differing, detail, pending, numbers)

    def _money(self, table: Table) -> Finding:
        asset = f"{WAREHOUSE}/{table.name}"
        source = self._catalogue.source[star_query(table.name).sources[0]]
        worth = f"{_CURRENCY}, sum({_MONEY[table.name]})::text"
        in_source = self._snapshot.rows(
            f"SELECT {partition_sql(source, self._days)}, {worth} FROM {quoted(source.name)} "
            f"WHERE {self._alive_in_source(source)} GROUP BY 1, 2"
        )
        held = self._warehouse.execute(
            f"SELECT created_date::text, {worth} FROM {self._current(table)} "
            f"WHERE {self._alive_in_warehouse(source, table.version_key[0])} GROUP BY 1, 2"
        ).fetchall()
        stale = self._stale.get(asset, set())
        sums = [_by_currency(rows, stale) for rows in (in_source, held)]
        numbers: dict[str, int | str] = {}
        for currency in sorted(sums[0].keys() | sums[1].keys()):
            numbers[f"currency_{currency}_in_totesys"] = str(sums[0].get(currency, Decimal(0)))
            numbers[f"currency_{currency}_in_warehouse"] = str(sums[1].get(currency, Decimal(0)))
        amounts = ", ".join(f"{self._currency(currency)} {amount:,.2f}" for currency, amount in sorted(sums[1].items()))
        detail = amounts or "no money yet"
        if sums[0] != sums[1]:
            other = ", ".join(
                f"{self._currency(currency)} {amount:,.2f}" for currency, amount in sorted(sums[0].items())
            )
            detail = f"{detail} in the warehouse, but {other} in ToteSys"
        return Finding(asset, MONEY, sums[0] == sums[1], detail, len(stale), numbers)

    def _currency(self, currency: int) -> str:
        query = f"SELECT currency_code FROM {self._name('dim_currency')} WHERE currency_id = %s"
        row = self._warehouse.execute(query, [currency]).fetchone()
        return str(row[0]) if row else f"currency {currency}"

    def _references(self, table: Table) -> Finding:
        broken: dict[str, list[str]] = {}
        for column in table.columns:
            if column.references is None:
                continue
            key = self._catalogue.star[column.references].key
            rows = self._warehouse.execute(
                f"SELECT DISTINCT {quoted(column.name)}::text FROM {self._name(table.name)} AS fact "
                f"WHERE {quoted(column.name)} IS NOT NULL AND NOT EXISTS (SELECT FROM {self._name(column.references)} "
                f"AS dimension WHERE dimension.{quoted(key)} = fact.{quoted(column.name)})"
            ).fetchall()
            if rows:
                broken[column.name] = sorted(row[0] for row in rows)
        detail = (
            "every reference finds its row"
            if not broken
            else "; ".join(f"{column} {_some(keys)} has no row in its dimension" for column, keys in broken.items())
        )
        numbers: dict[str, int | str] = {"keys_without_row": sum(len(keys) for keys in broken.values())}
        return Finding(f"{WAREHOUSE}/{table.name}", REFERENCES, not broken, detail, 0, numbers)

    def _alive_in_warehouse(self, source: Table, key: str) -> str:
        dead = ", ".join(literal(each) for each in self._dead[source.name])
        return f"{quoted(key)}::text NOT IN ({dead})" if dead else "true"

    def _current(self, table: Table) -> str:
        if table.is_fact:
            return self._name(f"current_{table.name.removeprefix('fact_')}")
        return f"(SELECT * FROM {self._name(table.name)} WHERE NOT _is_deleted) AS present"

    def _name(self, relation: str) -> str:
        return sql.Identifier(self._schema, relation).as_string(self._warehouse)

    def _held(self, query: str) -> Digests:
        return {str(partition): str(digest) for partition, digest in self._warehouse.execute(query).fetchall()}

    def _compare(self, asset: str, one: Digests, other: Digests) -> tuple[int, list[str]]:
        """How many partitions are pending, and which of the others differ."""
        stale = self._stale.get(asset, set())
        differing = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key) and key not in stale]
        return len(stale), sorted(differing)


def _by_currency(rows: Iterable[tuple[Any, ...]], stale: set[str]) -> dict[int, Decimal]:
    sums: dict[int, Decimal] = {}
    for partition, currency, amount in rows:
        if partition not in stale:
            sums[currency] = sums.get(currency, Decimal(0)) + Decimal(amount)
    return sums


def _count(digests: Mapping[str, str], partition: str) -> int:
    return int(digests.get(partition, "0").split()[0])


def _total(digests: Mapping[str, str]) -> int:
    return sum(_count(digests, partition) for partition in digests)


def _rows(digests: Mapping[str, str]) -> str:
    return f"{_total(digests):,}"


def _some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    listed = [("the whole table" if name == WHOLE else name) for name in sorted(names)]
    more = f" and {len(listed) - _EXAMPLES} more" if len(listed) > _EXAMPLES else ""
    return ", ".join(listed[:_EXAMPLES]) + more
