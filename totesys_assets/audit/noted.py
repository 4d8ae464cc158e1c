"""The note on an audit in the warehouse, for readers who do not see Dagster: what it found, check by check.

Belongs here: writing the note. Does not belong here: the audit, which does not know of it; where it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import psycopg
from psycopg import sql

from totesys_assets import engine
from totesys_assets.audit.findings import Finding
from totesys_assets.errors import PlatformError
from totesys_assets.warehouse.notes import FINDING, exists
from totesys_assets.warehouse.warehouse import Warehouse

_COLUMNS = ("asset", "check_name", "outcome", "detail", "run_id", "audited_at")


def note_findings(
    warehouse: Warehouse, findings: Iterable[Finding], *, whole: bool, run_id: str | None = None
) -> str | None:
    """Write down what an audit found. Returns why it could not be, in a sentence: no audit fails for want of the note.

    ``whole``: these are all checks that there are, so that of others nothing is kept. ``run_id``: of Dagster's run.
    """
    now = datetime.now(UTC)
    rows = [(each.asset, each.check, each.outcome, each.detail, run_id, now) for each in findings]
    try:
        with warehouse.connect() as connection:
            if not exists(connection, warehouse.schema, FINDING):
                return f"The warehouse has no table {FINDING} yet for what the audit found: the next load makes it."
            table = sql.Identifier(warehouse.schema, FINDING)
            if whole:
                connection.execute(sql.SQL("DELETE FROM {}").format(table))
            with connection.cursor() as cursor:
                cursor.executemany(_upsert(table), rows)
    except (PlatformError, psycopg.Error) as error:
        reason = str(error) if isinstance(error, PlatformError) else f"{engine.one_line(error)}."
        return f"What the audit found could not be noted in the warehouse: {reason}"
    return None


def _upsert(table: sql.Identifier) -> sql.Composed:
    key, others = _COLUMNS[:2], _COLUMNS[2:]
    return sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}").format(
        table,
        sql.SQL(", ").join(map(sql.Identifier, _COLUMNS)),
        sql.SQL(", ").join(sql.Placeholder() * len(_COLUMNS)),
        sql.SQL(", ").join(map(sql.Identifier, key)),
        sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(each)) for each in others),
    )
