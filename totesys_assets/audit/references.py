"""The audit's check of references: every record of a fact finds its dimension rows.

Belongs here: which row is missing, and which need not be there. Does not belong here: the dimensions' own rows, which
other checks compare with the lake and with the sources (star.py).
"""

from __future__ import annotations

from totesys_assets.audit.findings import REFERENCES, Finding, some
from totesys_assets.audit.observed import Observed
from totesys_assets.audit.star import current, mirrored
from totesys_assets.catalogue.catalogue import Column, Table
from totesys_assets.counting import counted
from totesys_assets.lake.read import register
from totesys_assets.names import WAREHOUSE
from totesys_assets.sql_text import literal, quoted


def references(seen: Observed, table: Table) -> Finding:
    """Every record finds its dimension rows, but for those that wait for a refresh.

    A record that was superseded may name a row of which the lake has no version: a dead letter that is gone, or a row
    that was there only between two looks.
    """
    asset, broken, waiting = f"{WAREHOUSE}/{table.name}", dict[str, set[str]](), dict[str, set[str]]()
    pending: set[tuple[str, str]] = set()
    for column in table.columns:
        if column.references is None:
            continue
        missing = _without_row(seen, seen.name(table.name), column)
        if missing and table.is_fact:
            named_now = _without_row(seen, current(seen, table), column)
            missing = named_now | _with_version(seen, column.references, missing - named_now)
        expected = _expected_rows(seen, column.references, missing) if missing else set()
        if expected:
            waiting[column.name] = expected
            pending |= {(column.references, each) for each in seen.pending(f"{WAREHOUSE}/{column.references}")}
        if missing - expected:
            broken[column.name] = missing - expected
    [(records,)] = seen.warehouse.execute(f"SELECT count(*) FROM {seen.name(table.name)}").fetchall()
    if not records and (nothing := seen.nothing(asset, REFERENCES)):
        return nothing
    numbers: dict[str, int | str] = {"records": records, "keys_without_row": sum(map(len, broken.values()))}
    if broken:
        detail = "; ".join(
            _keys(keys, column, "has no row in its", "have no row in their") for column, keys in broken.items()
        )
    elif waiting:
        detail = "every reference finds its row, but " + "; ".join(
            _keys(keys, column, "waits for a refresh of its", "wait for a refresh of their")
            for column, keys in waiting.items()
        )
    else:
        detail = f"{counted(records, 'record')}, every reference finds its row" if records else "no records yet"
    return Finding(asset, REFERENCES, not broken, detail, len(pending), numbers)


def _keys(keys: set[str], column: str, one: str, many: str) -> str:
    return f"{column} {some(keys)} {f'{one} dimension' if len(keys) == 1 else f'{many} dimension'}"


def _without_row(seen: Observed, records: str, column: Column) -> set[str]:
    """The values of ``column`` in ``records`` that its dimension has not."""
    dimension = str(column.references)
    rows = seen.warehouse.execute(
        f"SELECT DISTINCT {quoted(column.name)}::text FROM {records} AS fact "
        f"WHERE {quoted(column.name)} IS NOT NULL AND NOT EXISTS (SELECT FROM {seen.name(dimension)} AS dimension "
        f"WHERE dimension.{quoted(seen.catalogue.star[dimension].key)} = fact.{quoted(column.name)})"
    ).fetchall()
    return {str(row[0]) for row in rows}


def _with_version(seen: Observed, dimension: str, keys: set[str]) -> set[str]:
    """Those of ``keys`` of which the lake has a version; all, if the dimension is not made of the rows of a table."""
    source = mirrored(seen.catalogue, seen.catalogue.star[dimension])
    if not keys or source is None:
        return keys
    held = seen.versions.get(source.name)
    if held is None:
        return set()
    named, listed = f"{quoted(source.key)}::text", ", ".join(literal(each) for each in sorted(keys))
    versions = register(seen.engine, "named_versions", held)
    found = seen.engine.execute(f"SELECT DISTINCT {named} FROM {versions} WHERE {named} IN ({listed})").fetchall()
    return {str(row[0]) for row in found}


def _expected_rows(seen: Observed, dimension: str, keys: set[str]) -> set[str]:
    """Those of ``keys`` whose rows come with the next refresh: the source has them, and the dimension is pending.

    A dimension that is made of a table which cannot be examined waits for that; its own checks say why.
    """
    asset = f"{WAREHOUSE}/{dimension}"
    if seen.problem(asset) is not None:
        return keys
    pending = seen.pending(asset)
    source = mirrored(seen.catalogue, seen.catalogue.star[dimension])
    if not pending or source is None:
        return keys if pending else set()
    listed, partitions = (", ".join(literal(each) for each in sorted(group)) for group in (keys, pending))
    snapshot = seen.snapshot_of(source)
    rows = snapshot.rows(
        f"SELECT {quoted(source.key)}::text FROM {snapshot.relation(source)} "
        f"WHERE {quoted(source.key)}::text IN ({listed}) "
        f"AND {seen.alive_in_source(source)} AND {snapshot.partition(source, seen.all_days)} IN ({partitions})"
    )
    return {str(row[0]) for row in rows}
