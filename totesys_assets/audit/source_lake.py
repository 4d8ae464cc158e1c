"""The checks of ToteSys and the lake: the same rows, every version noted, nothing overdue, no false deletions.

Belongs here: what must be equal, or true, between the two. Does not belong here: reading them as of one instant
(observed.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

from totesys_assets.audit.findings import CONTENT, DELETIONS, LEDGER, Finding, counted, some
from totesys_assets.audit.observed import Digests, Observed, day_sql, total
from totesys_assets.automation.decide import TOTESYS
from totesys_assets.capture.fingerprint import partition_sql
from totesys_assets.catalogue.catalogue import MONTH, OPERATION, RECORDED_AT, Table
from totesys_assets.days import WHOLE, DayRange
from totesys_assets.resources.digest import DUCKDB, POSTGRES, row_number
from totesys_assets.resources.engine import literal, quoted
from totesys_assets.resources.lake import INGESTION, bounds, register
from totesys_assets.resources.totesys import READ


def content(seen: Observed, table: Table) -> Finding:
    """The lake's current rows are those of ToteSys, in every column."""
    asset = f"{TOTESYS}/{table.name}"
    in_source = seen.source_digests(table, row_number(table.columns, POSTGRES), asset)
    in_lake = _lake_digests(seen, table)
    compared = seen.compare(asset, in_source, in_lake)
    if not compared.compared and (nothing := seen.nothing(asset, CONTENT)):
        return nothing
    missed = seen.totals.get(f"{INGESTION}/{table.name}", {})
    rows = sum(_rows_differing(seen, table, partition) for partition in compared.differing)
    numbers: dict[str, int | str] = {
        "rows": total(in_source),
        "partitions_compared": compared.compared,
        "partitions_differing": len(compared.differing),
        "rows_missed": rows,
        "rows_missed_before": sum(each.missed for each in missed.values()),
    }
    detail = f"{counted(total(in_source), 'row')}, equal in every column"
    if compared.differing:
        differ = "differs" if rows == 1 else "differ"
        detail = f"{counted(rows, 'row')} {differ} in {some(compared.differing)}: totesys refresh --full brings "
        detail += "it in" if rows == 1 else "them in"
    elif not compared.compared:
        detail = "no rows, in ToteSys and in the lake"
    return Finding(asset, CONTENT, not compared.differing, detail, compared.pending, numbers)


def _months(seen: Observed, table: Table) -> Iterator[DayRange | None]:
    """The months that the lake has rows of, so that no more than one is in memory; None for a table that is one set."""
    if table.name not in seen.versions:
        return
    if table.day_column is None:
        yield None
        return
    for month in sorted({folder[MONTH] for folder in seen.versions[table.name].partitions()}):
        first = date.fromisoformat(f"{month}-01")
        yield next(DayRange(first, first + timedelta(days=31)).by_month())


def _lake_rows(seen: Observed, table: Table, days: DayRange | None) -> str:
    """DuckDB query of the lake's current rows: key, day and digest; a row is known by its key within its day.

    No more than these three travel, so that a month of a million rows takes some megabytes.
    """
    held = register(seen.engine, f"audited_{table.name}", seen.versions[table.name], days)
    day = f"CAST({quoted(table.day_column)} AS DATE)" if table.day_column else "NULL"
    within = f"WHERE day BETWEEN DATE '{days.first}' AND DATE '{days.last}'" if days else ""
    seen.engine.execute(
        "CREATE OR REPLACE TEMP TABLE dead AS SELECT unnest(CAST(? AS VARCHAR[])) AS row_key", [seen.dead[table.name]]
    )
    digest = f"CASE {OPERATION} WHEN 'delete' THEN -1 ELSE {row_number(table.columns, DUCKDB)} END"
    return (
        f"SELECT row_key, day, arg_max(digest, moment) AS digest FROM ("
        f"SELECT {quoted(table.key)} AS row_key, {day} AS day, {digest} AS digest, {RECORDED_AT} AS moment FROM {held}"
        f") AS versions {within} GROUP BY row_key, day HAVING arg_max(digest, moment) <> -1 "
        f"AND CAST(row_key AS VARCHAR) NOT IN (SELECT row_key FROM dead)"
    )


def _lake_digests(seen: Observed, table: Table) -> Digests:
    found: Digests = {}
    partition = "strftime(day, '%Y-%m-%d')" if table.day_column else literal(WHOLE)
    for month in _months(seen, table):
        query = (
            f"SELECT {partition}, count(*) || ' ' || coalesce(sum(digest), 0) "
            f"FROM ({_lake_rows(seen, table, month)}) GROUP BY 1"
        )
        found |= dict(seen.engine.execute(query).fetchall())
    return found


def _rows_differing(seen: Observed, table: Table, partition: str) -> int:
    """Rows of one partition that are not the same on both sides, or only on one."""
    source = (
        f"SELECT {quoted(table.key)} AS row_key, {row_number(table.columns, POSTGRES)} AS digest "
        f"FROM {seen.snapshot.relation(table)} WHERE {seen.alive_in_source(table)} "
        f"AND {partition_sql(table, seen.days)} = {literal(partition)}"
    )
    in_source = seen.snapshot.connection.execute(READ, [source]).to_arrow_table()
    if table.name not in seen.versions:
        return in_source.num_rows
    seen.engine.register("in_source", in_source)
    in_lake = _lake_rows(seen, table, DayRange.of(partition) if table.day_column else None)
    row = seen.engine.execute(
        f"SELECT count(*) FROM in_source FULL JOIN ({in_lake}) AS in_lake USING (row_key) "
        "WHERE in_source.digest IS DISTINCT FROM in_lake.digest"
    ).fetchone()
    return int(row[0]) if row else 0


def ledger(seen: Observed, table: Table) -> Finding:
    """More versions noted than held are versions lost; fewer noted are what a crash before the ledger leaves."""
    asset = f"{TOTESYS}/{table.name}"
    held: dict[str, int] = {}
    if table.name in seen.versions:
        versions = register(seen.engine, f"counted_{table.name}", seen.versions[table.name])
        held = dict(seen.engine.execute(f"SELECT {day_sql(table)}, count(*) FROM {versions} GROUP BY 1").fetchall())
    noted = seen.totals.get(f"{INGESTION}/{table.name}", {})
    lost = {key: each.versions - held.get(key, 0) for key, each in noted.items() if each.versions > held.get(key, 0)}
    numbers: dict[str, int | str] = {
        "versions_held": sum(held.values()),
        "versions_noted": sum(each.versions for each in noted.values()),
    }
    if not noted and (nothing := seen.nothing(asset, LEDGER)):
        return nothing
    if not lost:
        return Finding(asset, LEDGER, True, f"{counted(sum(held.values()), 'version')} held", 0, numbers)
    count = sum(lost.values())
    detail = (
        f"{counted(count, 'version')} {'was' if count == 1 else 'were'} noted and {'is' if count == 1 else 'are'} not "
        f"in the lake, in {some(lost)}: restore the lake from its backup"
    )
    return Finding(asset, LEDGER, False, detail, 0, numbers)


def deletions(seen: Observed, table: Table) -> Finding:
    """Rows whose deletion was followed by an insertion of the very same row: ToteSys may have had them all the while.

    A row that moves to another day leaves and arrives in one instant, and is another row, by its created_at.
    """
    asset = f"{TOTESYS}/{table.name}"
    held = seen.versions.get(table.name)
    rows: list[tuple[int, str, str]] = []
    # Where rows were only ever inserted, as the files note it, none was deleted.
    if held is not None and bounds(held, OPERATION) != ("insert", "insert"):
        versions = register(seen.engine, f"returned_{table.name}", held)
        key, order = quoted(table.key), f"{RECORDED_AT}, {OPERATION} <> 'delete'"
        rows = seen.engine.execute(
            f"SELECT count(DISTINCT row_key), min(moment)::VARCHAR, max(moment)::VARCHAR FROM ("
            f"SELECT {key} AS row_key, {RECORDED_AT} AS moment, {OPERATION} AS operation, digest, "
            f"lag({OPERATION}) OVER versions AS before, lag(digest) OVER versions AS digest_before "
            f"FROM (SELECT *, {row_number(table.columns, DUCKDB)} AS digest FROM {versions} "
            f"WHERE {key} IN (SELECT {key} FROM {versions} WHERE {OPERATION} = 'delete')) "
            f"WINDOW versions AS (PARTITION BY {key} ORDER BY {order})) "
            "WHERE operation = 'insert' AND before = 'delete' AND digest = digest_before"
        ).fetchall()
    count, first, last = rows[0] if rows else (0, "", "")
    if not count:
        return Finding(asset, DELETIONS, True, "no row came back as it was", 0, {"rows_returned": 0})
    when = f"at {_second(first)}" if _second(first) == _second(last) else f"from {_second(first)} to {_second(last)}"
    detail = (
        f"{counted(count, 'row')} {'was' if count == 1 else 'were'} deleted and came back equal in every column, "
        f"{when} UTC: if ToteSys had {'it' if count == 1 else 'them'} all the while, the history's deletion is false"
    )
    return Finding(asset, DELETIONS, False, detail, 0, {"rows_returned": count}, warning=True)


def _second(moment: str) -> str:
    return moment[:19]
