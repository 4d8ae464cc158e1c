"""What every asset says of itself: key, owner, columns, lineage, counts; and how errors reach Dagster.

Belongs here: metadata made of the catalogue. Does not belong here: what an asset does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any

import dagster as dg

from totesys_assets.assets import blocked
from totesys_assets.capture.ledger import Ledger
from totesys_assets.catalogue.catalogue import COMMIT_LSN, OPERATION, RECORDED_AT, Catalogue, Column, Table, ddl
from totesys_assets.catalogue.queries import query_of
from totesys_assets.dagster_internals import switch
from totesys_assets.days import ONE_DAY, WHOLE, DayRange, Days, DaySet
from totesys_assets.errors import PlatformError
from totesys_assets.lake.tables import Lake
from totesys_assets.names import (
    CHANGES_ONLY_TAG,
    MADE,
    MART,
    NO_DEAD_LETTERS,
    NOTHING_MISSED,
    OTHER_DAYS_TAG,
    RANGE_TAG,
    STAR,
    TOTESYS,
    WAREHOUSE,
)

OWNERS = ["team:data-platform"]
# What the lake adds to a source table, as users see it.
_OPERATION = dg.TableColumn(OPERATION, "character varying", "how this version came to be: insert, update or delete")
_FIRST_SEEN = "when this version was first seen, by {clock}"
_COMMITTED = dg.TableColumn(
    COMMIT_LSN, "bigint", "where its commit is in the log of ToteSys; empty for a version that a comparison found"
)


def keys(tables: Mapping[str, Table], names: Iterable[str]) -> list[dg.AssetKey]:
    """Asset keys of some of the ``tables``."""
    return [_asset_key(tables[name]) for name in names]


def definition_metadata(
    table: Table, name: str, storage: str, *, defined_in: Sequence[dg.LocalFileCodeReference], versioned: bool = False
) -> dict[str, Any]:
    """Metadata that holds before the first run: columns, table name, kind of storage, and the files that define it."""
    held = table.columns if storage == "postgres" else table.lake_columns
    columns = [_table_column(column) for column in held] + (_version_columns(table) if versioned else [])
    return {
        "dagster/column_schema": dg.TableSchema(columns),
        "dagster/table_name": name,
        "dagster/storage_kind": storage,
        "dagster/code_references": dg.CodeReferencesMetadataValue(code_references=list(defined_in)),
    }


def _version_columns(table: Table) -> list[dg.TableColumn]:
    clock = "the source's clock" if table.group == TOTESYS else "the clock of the machine that copied it"
    recorded = dg.TableColumn(RECORDED_AT, "timestamp with time zone", _FIRST_SEEN.format(clock=clock))
    return [_OPERATION, recorded, *([_COMMITTED] if table.group == TOTESYS else [])]


def ddl_reference(table: Table) -> dg.LocalFileCodeReference:
    """Where in catalogue/ the table is defined."""
    file = {STAR: "warehouse.sql", MART: "marts.sql"}.get(table.group, f"{table.group}.sql")
    first = f"CREATE TABLE {table.name} ("
    line = next((n for n, text in enumerate(ddl(file).splitlines(), 1) if text.startswith(first)), 1)
    return _reference("totesys_assets.catalogue", file, line)


def query_reference(table: Table) -> dg.LocalFileCodeReference:
    """The file that holds the SELECT of a star table or mart."""
    return _reference("totesys_assets", f"{'marts' if table.is_mart else 'star'}/{table.name}.sql", 1)


def _reference(package: str, file: str, line: int) -> dg.LocalFileCodeReference:
    path = resources.files(package).joinpath(file)
    label = f"{package.partition('.')[2]}/{file}".lstrip("/")
    return dg.LocalFileCodeReference(file_path=str(path), line_number=line, label=label)


def _table_column(column: Column) -> dg.TableColumn:
    other = [f"one of {', '.join(column.labels)}"] if column.labels else []
    other += [f"refers to {column.references}"] if column.references else []
    return dg.TableColumn(
        column.name,
        column.type,
        column.description,
        dg.TableColumnConstraints(nullable=column.nullable, unique=column.is_unique, other=other),
    )


def query_lineage(catalogue: Catalogue, table: Table) -> dg.TableColumnLineage:
    """Column lineage of a star table or mart, read out of its SELECT."""
    if table.is_mart:
        read = catalogue.star
        columns = {name: tuple(star.by_name) for name, star in read.items()}
    else:
        read = catalogue.source
        columns = {name: (*source.by_name, OPERATION, RECORDED_AT) for name, source in read.items()}
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(_asset_key(read[name]), source) for name, source in deps]
            for column, deps in query_of(table.name).column_lineage(columns).items()
        }
    )


def warehouse_lineage(table: Table) -> dg.TableColumnLineage:
    """Column lineage of a warehouse table: each column from the same column of the lake's table."""
    return dg.TableColumnLineage(
        {column.name: [dg.TableColumnDep(_asset_key(table), column.name)] for column in table.lake_columns}
    )


def changes_only(context: dg.AssetExecutionContext) -> bool:
    """True when the run need not look at what was not written since the last one."""
    return context.run.tags.get(CHANGES_ONLY_TAG) == "true"


def is_range(context: dg.AssetExecutionContext) -> bool:
    """True when other runs may bring in other days at the same time."""
    return RANGE_TAG.items() <= context.run.tags.items()


def run_days(context: dg.AssetExecutionContext) -> Days | None:
    """The days that this run asks of a partitioned asset; None for an asset that is one set."""
    if not context.assets_def.partitions_def:
        return None
    own, others = _own_days(context), context.run.tags.get(OTHER_DAYS_TAG)
    return DaySet((*DaySet.parse(others).ranges, own)) if others else own


def _own_days(context: dg.AssetExecutionContext) -> DayRange:
    window = context.partition_time_window
    return DayRange(window.start.date(), window.end.date() - ONE_DAY)


def record_partitions(
    context: dg.AssetExecutionContext, days: Days | None, metadata: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Attach metadata to each partition of the run; returns what belongs to an asset that is one set.

    Dagster itself makes the events of the run's own range, the last of ``days``. The events of the others are added.
    """
    if days is None:
        return dict(metadata.get(WHOLE, {}))
    *others, own = days.ranges
    switch.record_partitions(
        context,
        own={key: metadata.get(key, {}) for key in own.keys},
        others={key: metadata.get(key, {}) for each in others for key in each.keys},
    )
    return {}


def row_count(rows: int, *, of_partition: bool) -> dict[str, Any]:
    """Dagster's own metadata for a count of rows."""
    return {"dagster/partition_row_count" if of_partition else "dagster/row_count": rows}


def total_row_count(lake: Lake, table: str) -> dict[str, Any]:
    """Rows of all partitions, for the newest materialisation. ``table``: as the ledger names it, ``zone/name``.

    Dagster draws the history of a table's size from these; from counts of partitions it draws sizes of days.
    """
    return row_count(sum(entry.rows for entry in Ledger(lake).remembered(table).values()), of_partition=False)


@contextmanager
def failures() -> Iterator[None]:
    """Show a PlatformError as the failure's description: it already says what to do."""
    try:
        yield
    except PlatformError as error:
        raise dg.Failure(str(error)) from error


def own_checks(assets: Iterable[str]) -> list[dg.AssetCheckKey]:
    """The checks that go with the materialisation of ``assets``; those of the audit go by themselves."""
    return [key for asset in assets for key in _own_checks(*asset.split("/"))]


def _own_checks(group: str, table: str) -> Iterator[dg.AssetCheckKey]:
    if group not in MADE:
        for check in (NO_DEAD_LETTERS, NOTHING_MISSED):
            yield dg.AssetCheckKey(dg.AssetKey([group, table]), check)
    for spec in blocked.checks(group, table):
        yield spec.key


def _asset_key(table: Table) -> dg.AssetKey:
    return dg.AssetKey([table.group, table.name])


GROUPS = {STAR: "processed", MART: "marts", WAREHOUSE: "warehouse"}
