"""The checks of the warehouse: against the lake, against the sources, and its views against each other.

Belongs here: what must be equal, or true, of the star. Does not belong here: reading the three (observed.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from totesys_assets.audit.digests import Digests, count, total
from totesys_assets.audit.findings import MONEY, RECORDS, REFERENCES, ROWS, VIEWS, Finding, some
from totesys_assets.audit.observed import Observed, day_sql
from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.catalogue.queries import query_of
from totesys_assets.counting import counted
from totesys_assets.days import WHOLE
from totesys_assets.digest import DUCKDB, POSTGRES, row_number, set_digest
from totesys_assets.load.origin import comparable
from totesys_assets.names import WAREHOUSE
from totesys_assets.sql_text import literal, quoted
from totesys_assets.transform.schemas import create_schemas, warehouse_rows

# The worth of a fact, in columns that have the same names in the source; and the table that has its currency.
_MONEY = {
    "fact_sales_order": "units_sold * unit_price",
    "fact_purchase_order": "item_quantity * item_unit_price",
    "fact_payment": "payment_amount",
}
_CURRENCY = "currency_id"


def checks(catalogue: Catalogue, table: Table) -> Iterator[str]:
    """The checks that there are of star ``table``."""
    yield RECORDS
    if mirrored(catalogue, table) is not None:
        yield ROWS
    if table.name in _MONEY:
        yield MONEY
    if any(column.references for column in table.columns):
        yield REFERENCES
    if table.is_fact:
        yield VIEWS


def mirrored(catalogue: Catalogue, table: Table) -> Table | None:
    """The source table that has a row for each current row of star ``table``, known by the same one column.

    The calendar has none, nor has a table made of one whose key has several columns.
    """
    first = catalogue.source[query_of(table.name).sources[0]]
    if len(first.primary_key) > 1:
        return None
    return first if table.is_fact or any(column.name == "_is_deleted" for column in table.columns) else None


# The lake and the warehouse


def records(seen: Observed, table: Table) -> Finding:
    """The warehouse holds every record that follows from the lake's versions, in every column, and no other.

    Raises LakeChanged, which fails the check: its differences may be on days that no refresh brings up to date.
    """
    asset = f"{WAREHOUSE}/{table.name}"
    if (changed := seen.lake_changed(table)) is not None:
        raise changed
    day = f"{quoted(table.day_column)}::text" if table.day_column else literal(WHOLE)
    digest = set_digest(row_number(table.lake_columns, POSTGRES))
    expected = _expected_digests(seen, table)
    held = seen.warehouse_digests(
        f"SELECT {day}, {digest} FROM {seen.name(table.name)} WHERE {_comparable(seen, table)} GROUP BY 1"
    )
    compared = seen.compare(asset, expected, held)
    if not compared.compared and (nothing := seen.nothing(asset, RECORDS)):
        return nothing
    numbers: dict[str, int | str] = {"records": total(held), "partitions_differing": len(compared.differing)}
    settled = sum(count(held, key) for key in held.keys() - seen.pending(asset))
    detail = f"{counted(settled, 'record')}, equal in every column"
    if compared.differing:
        detail = (
            f"the records differ from what follows from the lake, in {some(compared.differing)}: "
            "totesys refresh --full brings in what is missing, totesys replay makes all of them anew"
        )
    elif not compared.compared:
        detail = "no records, and none follow from the lake"
    return Finding(asset, RECORDS, not compared.differing, detail, compared.pending, numbers)


def _expected_digests(seen: Observed, table: Table) -> Digests:
    query = query_of(table.name)
    sources = {name: seen.versions[name] for name in query.sources if name in seen.versions}
    if len(sources) < len(query.sources):
        return {}
    digest = set_digest(row_number(table.lake_columns, DUCKDB))
    create_schemas(seen.engine, seen.catalogue, query, sources, None)
    compared = comparable(table, seen.adopted(table))
    rows = f"SELECT {day_sql(table)}, {digest} FROM ({warehouse_rows(table)}) WHERE {compared} GROUP BY 1"
    return dict(seen.engine.execute(rows).fetchall())


def _comparable(seen: Observed, table: Table) -> str:
    """Condition of the warehouse's rows that follow from the lake, where that was adopted from some moment on.

    A dimension's rows that only the warehouse has are those of keys that the lake does not know.
    """
    adopted = seen.adopted(table)
    condition = comparable(table, adopted)
    held = all(name in seen.versions for name in query_of(table.name).sources)
    if not adopted or not held or table.is_fact or table.is_mart:
        return condition
    key = f"CAST({quoted(table.key)} AS VARCHAR)"
    keys = seen.engine.execute(f"SELECT DISTINCT {key} FROM ({warehouse_rows(table)})").fetchall()
    listed = ", ".join(literal(each) for (each,) in keys) or "NULL"
    return f"{condition} AND {quoted(table.key)}::text IN ({listed})"


# The source and the warehouse


def current_rows(seen: Observed, table: Table) -> Finding:
    """The current rows are those of the source, by number and key."""
    asset = f"{WAREHOUSE}/{table.name}"
    source = mirrored(seen.catalogue, table)
    assert source is not None  # noqa: S101 - checks() asks for no other
    key = source.by_name[source.key]
    in_source = seen.source_digests(source, [key], asset)
    name = table.version_key[0] if table.is_fact else table.key
    day = f"{quoted(table.day_column)}::text" if table.day_column else literal(WHOLE)
    held = seen.warehouse_digests(
        f"SELECT {day}, {set_digest(row_number([key], POSTGRES, [name]))} FROM {current(seen, table)} "
        f"WHERE {seen.alive_in_warehouse(source, name)} GROUP BY 1"
    )
    compared = seen.compare(asset, in_source, held)
    if not compared.compared and (nothing := seen.nothing(asset, ROWS)):
        return nothing
    in_warehouse = sum(count(held, key) for key in held.keys() - seen.pending(asset))
    rows = counted(total(in_source), "row")
    detail = f"{rows} in {source.source_title}, {in_warehouse:,} current in the warehouse"
    if compared.differing:
        detail += f": they differ in {some(compared.differing)}"
    numbers: dict[str, int | str] = {"rows_in_totesys": total(in_source), "rows_in_warehouse": in_warehouse}
    return Finding(asset, ROWS, not compared.differing, detail, compared.pending, numbers)


def money(seen: Observed, table: Table) -> Finding:
    """The sums of money, by currency, are those of the source."""
    asset = f"{WAREHOUSE}/{table.name}"
    source = seen.catalogue.source[query_of(table.name).sources[0]]
    worth = f"{_CURRENCY}, sum({_MONEY[table.name]})::text"
    snapshot = seen.snapshot_of(source)
    in_source = snapshot.rows(
        f"SELECT {snapshot.partition(source, seen.all_days)}, {worth} FROM {snapshot.relation(source)} "
        f"WHERE {seen.settled_in_source(source, asset)} GROUP BY 1, 2"
    )
    held = seen.warehouse.execute(
        f"SELECT {quoted(str(table.day_column))}::text, {worth} FROM {current(seen, table)} "
        f"WHERE {seen.alive_in_warehouse(source, table.version_key[0])} GROUP BY 1, 2"
    ).fetchall()
    pending = seen.pending(asset)
    there, here = (_by_currency(rows, pending) for rows in (in_source, held))
    if not there and not here and (nothing := seen.nothing(asset, MONEY)):
        return nothing
    numbers: dict[str, int | str] = {}
    for currency in sorted(there.keys() | here.keys()):
        numbers[f"currency_{currency}_in_totesys"] = str(there.get(currency, Decimal(0)))
        numbers[f"currency_{currency}_in_warehouse"] = str(here.get(currency, Decimal(0)))
    detail = _amounts(seen, here)
    if there != here:
        detail = f"{detail} in the warehouse, but {_amounts(seen, there)} in {source.source_title}"
    return Finding(asset, MONEY, there == here, detail, len(pending), numbers)


def _by_currency(rows: Iterable[tuple[Any, ...]], pending: set[str]) -> dict[int, Decimal]:
    sums: dict[int, Decimal] = {}
    for partition, currency, amount in rows:
        if partition not in pending:
            sums[currency] = sums.get(currency, Decimal(0)) + Decimal(amount)
    return sums


def _amounts(seen: Observed, sums: dict[int, Decimal]) -> str:
    codes = dict(
        seen.warehouse.execute(f"SELECT currency_id, currency_code FROM {seen.name('dim_currency')}").fetchall()
    )
    named = (
        f"{codes.get(currency, f'currency {currency}')} {amount:,.2f}" for currency, amount in sorted(sums.items())
    )
    return ", ".join(named) or "no money yet"


# The warehouse in itself


def views(seen: Observed, table: Table) -> Finding:
    """The history's current records that are not deleted are those of the current view; each row has one of them."""
    asset, subject = f"{WAREHOUSE}/{table.name}", table.name.removeprefix("fact_")
    number, key = quoted(table.key), quoted(table.version_key[0])
    history, current = seen.name(f"history_{subject}"), seen.name(f"current_{subject}")
    [(alike, only_history, only_current, keys)] = seen.warehouse.execute(
        f"SELECT count(*) FILTER (WHERE h.{number} = c.{number}), count(*) FILTER (WHERE c.{number} IS NULL), "
        f"count(*) FILTER (WHERE h.{number} IS NULL), array_agg(DISTINCT coalesce(h.{key}, c.{key})::text) "
        f"FILTER (WHERE h.{number} IS NULL OR c.{number} IS NULL) "
        f"FROM (SELECT {number}, {key} FROM {history} WHERE is_current AND NOT is_deleted) AS h "
        f"FULL JOIN (SELECT {number}, {key} FROM {current}) AS c ON h.{number} = c.{number}"
    ).fetchall()
    odd = seen.warehouse.execute(
        f"SELECT {key}::text FROM {history} GROUP BY {key} HAVING count(*) FILTER (WHERE is_current) <> 1"
    ).fetchall()
    broken = set(keys or []) | {str(row[0]) for row in odd}
    if not alike and not broken and (nothing := seen.nothing(asset, VIEWS)):
        return nothing
    numbers: dict[str, int | str] = {"records": alike, "only_history": only_history, "only_current": only_current}
    detail = f"{counted(alike, 'record')} current in both views" if alike else "no current records, in both views"
    if broken:
        differ = "is not the same" if len(broken) == 1 else "are not the same"
        detail = f"{table.version_key[0]} {some(broken)} {differ} in history_{subject} and current_{subject}"
    return Finding(asset, VIEWS, not broken, detail, 0, numbers)


def current(seen: Observed, table: Table) -> str:
    """What shows the current rows of a table, for SQL."""
    if table.is_fact:
        return seen.name(f"current_{table.name.removeprefix('fact_')}")
    return f"(SELECT * FROM {seen.name(table.name)} WHERE NOT _is_deleted) AS present"
