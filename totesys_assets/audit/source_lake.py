"""The checks of a source and the lake: the same rows, every version noted, a history that is plausible.

Belongs here: what must be equal, or true, between the two. Does not belong here: reading them as of one instant
(observed.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from deltalake import DeltaTable

from totesys_assets.audit.digests import Digests, total
from totesys_assets.audit.findings import CONTENT, HISTORY, LEDGER, Finding, some
from totesys_assets.audit.observed import Observed, day_sql
from totesys_assets.capture.following import is_by_log
from totesys_assets.catalogue.catalogue import COMMIT_LSN, MONTH, OPERATION, RECORDED_AT, Table
from totesys_assets.counting import counted
from totesys_assets.days import WHOLE, DayRange
from totesys_assets.digest import DUCKDB, row_number
from totesys_assets.lake.commit import rows_added
from totesys_assets.lake.marks import mark
from totesys_assets.lake.read import RECORDED, register
from totesys_assets.lake.tables import INGESTION
from totesys_assets.source.rows import row_id
from totesys_assets.sql_text import literal, quoted


def content(seen: Observed, table: Table) -> Finding:
    """The lake's current rows are those of the source, in every column."""
    asset = table.asset
    in_source = seen.source_digests(table, table.columns, asset)
    in_lake = _lake_digests(seen, table)
    compared = seen.compare(asset, in_source, in_lake)
    if not compared.compared and (nothing := seen.nothing(asset, CONTENT)):
        return nothing
    missed = seen.totals.get(f"{INGESTION}/{table.name}", {})
    found = [_rows_differing(seen, table, partition) for partition in compared.differing]
    rows, doubled = sum(differing for differing, _ in found), sum(doubled for _, doubled in found)
    numbers: dict[str, int | str] = {
        "rows": total(in_source),
        "partitions_compared": compared.compared,
        "partitions_differing": len(compared.differing),
        "rows_missed": rows,
        "rows_missed_before": sum(each.missed for each in missed.values()),
    }
    source = table.source_title
    detail = f"{counted(total(in_source), 'row')}, equal in every column"
    if doubled:
        detail = (
            f"{counted(doubled, 'row')} too many in {some(compared.differing)}, with the key of another: of rows with "
            f'one "{", ".join(table.primary_key)}" the lake holds one. Give each row of {source} a key of its own'
        )
    elif compared.differing:
        differ = "differs" if rows == 1 else "differ"
        detail = f"{counted(rows, 'row')} {differ} in {some(compared.differing)}: totesys refresh --full brings "
        detail += "it in" if rows == 1 else "them in"
    elif not compared.compared:
        detail = f"no rows, in {source} and in the lake"
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


def lake_rows(seen: Observed, table: Table, days: DayRange | None) -> str:
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
        f"SELECT {row_id(table)} AS row_key, {day} AS day, {digest} AS digest, {RECORDED_AT} AS moment FROM {held}"
        f") AS versions {within} GROUP BY row_key, day HAVING arg_max(digest, moment) <> -1 "
        f"AND CAST(row_key AS VARCHAR) NOT IN (SELECT row_key FROM dead)"
    )


def _lake_digests(seen: Observed, table: Table) -> Digests:
    found: Digests = {}
    partition = "strftime(day, '%Y-%m-%d')" if table.day_column else literal(WHOLE)
    for month in _months(seen, table):
        query = (
            f"SELECT {partition}, count(*) || ' ' || coalesce(sum(digest), 0) "
            f"FROM ({lake_rows(seen, table, month)}) GROUP BY 1"
        )
        found |= dict(seen.engine.execute(query).fetchall())
    return found


def _rows_differing(seen: Observed, table: Table, partition: str) -> tuple[int, int]:
    """Rows of one partition that are not the same on both sides, or only on one; and how many have another's key."""
    snapshot = seen.snapshot_of(table)
    source = seen.source_rows(table, f"{snapshot.partition(table, seen.all_days)} = {literal(partition)}")
    in_source = snapshot.connection.execute(source).to_arrow_table()
    doubled = in_source.num_rows - len(in_source.column("row_key").unique())
    if table.name not in seen.versions:
        return in_source.num_rows, doubled
    seen.engine.register("in_source", in_source)
    in_lake = lake_rows(seen, table, DayRange.of(partition) if table.day_column else None)
    row = seen.engine.execute(
        f"SELECT count(*) FROM in_source FULL JOIN ({in_lake}) AS in_lake USING (row_key) "
        "WHERE in_source.digest IS DISTINCT FROM in_lake.digest"
    ).fetchone()
    return (int(row[0]) if row else 0), doubled


def ledger(seen: Observed, table: Table) -> Finding:
    """More versions noted than held are versions lost; fewer noted are what a crash before the ledger leaves."""
    asset = table.asset
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


# How much later or earlier than its commit a version may be dated, by the clock of the process that writes the lake:
# clocks differ a little, and a capture takes some time.
_LATER, _EARLIER = timedelta(minutes=5), timedelta(hours=1)
# Commits looked through for the newest with rows: merging files makes some without.
_RECENT = 50

# Of every row with more than one version, those before it: of the row wherever it was, and on the same day.
_VERSIONS = """
SELECT row_key, moment, operation,
    operation = 'insert' AND lag(operation) OVER row_versions = 'delete' AND digest = lag(digest) OVER row_versions
        AND lag(position) OVER row_versions IS NULL AS is_return,
    CASE operation WHEN 'insert' THEN coalesce(lag(operation) OVER day_versions, 'delete') <> 'delete'
        WHEN 'update' THEN coalesce(lag(operation) OVER day_versions, 'delete') = 'delete'
            OR digest = lag(digest) OVER day_versions
        ELSE coalesce(lag(operation) OVER day_versions, 'delete') = 'delete' END AS is_odd
FROM (
    SELECT {key} AS row_key, {day} AS day, _recorded_at AS moment, _operation AS operation, {digest} AS digest,
        {position} AS position
    FROM {versions} WHERE {key} IN (SELECT {key} FROM {versions} GROUP BY {key} HAVING count(*) > 1)
) AS several
WINDOW row_versions AS (PARTITION BY row_key ORDER BY moment, operation <> 'delete'),
    day_versions AS (PARTITION BY row_key, day ORDER BY moment)
"""
_ODD = """
SELECT count(*) FILTER (WHERE is_odd), count(DISTINCT row_key) FILTER (WHERE is_return),
    min(moment) FILTER (WHERE is_return)::VARCHAR, max(moment) FILTER (WHERE is_return)::VARCHAR
FROM ({versions}) AS versions
"""


def history(seen: Observed, table: Table) -> Finding:
    """Check that each version follows from the one before, that no deleted row came back equal, and that dates fit.

    A row that moves to another day is deleted and inserted at the same instant, with another created_at. If a row was
    deleted and came back equal in every column, the deletion may be false: the source may have had it all the time.
    Not if the deletion has a position in the source's log, which told of it.
    """
    asset, held = table.asset, seen.versions.get(table.name)
    if held is None or not held.file_uris():
        return seen.nothing(asset, HISTORY) or Finding(asset, HISTORY, True, "no versions yet", 0)
    versions = _VERSIONS.format(
        key=row_id(table),
        day=f"CAST({quoted(table.day_column)} AS DATE)" if table.day_column else "NULL",
        digest=row_number(table.columns, DUCKDB),
        position=COMMIT_LSN if COMMIT_LSN in {field.name for field in held.schema().fields} else "NULL",
        versions=register(seen.engine, f"history_of_{table.name}", held),
    )
    [(odd, returned, first, last)] = seen.engine.execute(_ODD.format(versions=versions)).fetchall()
    numbers: dict[str, int | str] = {"versions_odd": odd, "rows_returned": returned}
    said = []
    if odd:
        follow = "does not follow from the version before it" if odd == 1 else "do not follow from those before them"
        said.append(f"{counted(odd, 'version')} {follow}: nobody but totesys may write to the lake")
    if returned:
        when = f"at {first[:19]}" if first == last else f"from {first[:19]} to {last[:19]}"
        said.append(
            f"{counted(returned, 'row')} {'was' if returned == 1 else 'were'} deleted and came back equal in every "
            f"column, {when} UTC: if {table.source_title} had {'it' if returned == 1 else 'them'} all the while, that "
            "deletion is false"
        )
    if off := _misdated(held):
        said.append(f"{off}: see the clock of {table.source_title}, and that of who writes the lake")
    detail = "; ".join(said) or "every version follows from the one before it"
    return Finding(asset, HISTORY, not said, detail, 0, numbers, warning=not odd)


def _misdated(held: DeltaTable) -> str | None:
    """How far the newest versions are dated from their commit, by the lake's own clock, if that is too far."""
    recorded = mark(held, RECORDED)
    writes = [each for each in held.history(_RECENT) if each.get("operation") == "WRITE"]
    with_rows = [each for each in writes if rows_added(each)]
    if not recorded or not with_rows:
        return None
    moment = datetime.fromtimestamp(recorded / 1_000_000, UTC)
    newest, newest_rows = (datetime.fromtimestamp(each[0]["timestamp"] / 1000, UTC) for each in (writes, with_rows))
    if moment > newest + _LATER:
        return f"the newest versions are dated {moment - newest} after they were written".replace(", ", " and ")
    # By the log a version is dated by its commit, however long that was not read.
    if moment < newest_rows - _EARLIER and not is_by_log(held):
        return f"the newest versions are dated {newest_rows - moment} before they were written".replace(", ", " and ")
    return None
