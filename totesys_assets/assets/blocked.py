"""Blocked: which source tables cannot be captured, and what waits for them, as checks of the assets.

Belongs here: what the checks claim and say, and reporting a change of that between two runs. Does not belong here:
finding it out (staleness/look.py), and telling people (automation/alerts.py).

Checks, because Dagster shows them where one looks: on the asset, in the graph and in the catalogue. Nothing else turns
red when a table is blocked: no run is started for it, and its last materialisation stays green. The assets give them
with each materialisation, too, since Dagster takes a check for outdated that is older than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from totesys_assets.catalogue.catalogue import Catalogue, Table, catalogue
from totesys_assets.catalogue.queries import query_of
from totesys_assets.names import MADE, WAREHOUSE
from totesys_assets.staleness.look import Examined

CAN_BE_CAPTURED, NO_NEW_COLUMNS, UPSTREAM_CAPTURED = "can_be_captured", "no_new_columns", "upstream_captured"
CLAIMS = {
    CAN_BE_CAPTURED: "The table is there, readable and as the catalogue says. Where it is not, nothing of it arrives.",
    NO_NEW_COLUMNS: "The source has no column in this table that the catalogue has not. One that it has is left out.",
    UPSTREAM_CAPTURED: "Every source table that this one is made of can be captured. Else it waits for that.",
}


def checks(group: str, table: str) -> list[dg.AssetCheckSpec]:
    """The checks of one asset: two of a captured table, one of what is made of those."""
    return [
        dg.AssetCheckSpec(key.name, asset=key.asset_key, description=CLAIMS[key.name]) for key in _keys(group, table)
    ]


def check_keys(tables: Catalogue) -> list[dg.AssetCheckKey]:
    """The checks of all assets."""
    groups = [(table.group, name) for name, table in (tables.source | tables.warehouse).items()]
    groups += [(WAREHOUSE, name) for name in tables.warehouse]
    return [key for group, name in groups for key in _keys(group, name)]


def _keys(group: str, table: str) -> list[dg.AssetCheckKey]:
    names = [UPSTREAM_CAPTURED] if group in MADE else [CAN_BE_CAPTURED, NO_NEW_COLUMNS]
    return [dg.AssetCheckKey(dg.AssetKey([group, table]), name) for name in names]


def of_captured(table: Table, reason: str | None, unknown: Sequence[str] = ()) -> list[dg.AssetCheckEvaluation]:
    """What the checks of a captured table say. ``reason``: why it cannot be captured; ``unknown``: columns left out."""
    found = [_evaluation(table.group, table.name, CAN_BE_CAPTURED, reason)]
    if reason is None:  # else nobody knows which columns would be left out
        columns = ", ".join(f'"{column}"' for column in unknown)
        warning = (
            f'Not captured of table "{table.name}": {columns}. Add what is wanted of it to '
            f"catalogue/{table.group}.sql; the next refresh then brings in its values."
        )
        found.append(_evaluation(table.group, table.name, NO_NEW_COLUMNS, warning if unknown else None))
    return found


def of_made(group: str, table: str, reasons: Mapping[str, str]) -> dg.AssetCheckEvaluation:
    """What the check of a table says that is made of others. ``reasons``: why source tables cannot be captured."""
    sources = [catalogue().source[name] for name in query_of(table).sources if name in reasons]
    waits = [f"Waits for {source.asset}. {reasons[source.name]}" for source in sources]
    return _evaluation(group, table, UPSTREAM_CAPTURED, " ".join(waits) or None)


def _evaluation(group: str, table: str, check: str, wrong: str | None) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey([group, table]),
        check_name=check,
        passed=wrong is None,
        severity=dg.AssetCheckSeverity.ERROR if check == CAN_BE_CAPTURED else dg.AssetCheckSeverity.WARN,
        description=wrong,
        metadata={},
    )


def result(found: dg.AssetCheckEvaluation) -> dg.AssetCheckResult:
    """The same, as an asset gives it with its materialisation: Dagster counts what was said before that as outdated."""
    return dg.AssetCheckResult(
        asset_key=found.asset_key,
        check_name=found.check_name,
        passed=found.passed,
        severity=found.severity,
        description=found.description,
    )


def evaluations(tables: Catalogue, examined: Examined) -> list[dg.AssetCheckEvaluation]:
    """What each of the checks says of tables that are as ``examined``."""
    reasons = {table: str(problem) for table, problem in examined.blocked.items()}
    captured = [
        of_captured(table, reasons.get(name), examined.unknown.get(name, ())) for name, table in tables.source.items()
    ]
    made = [
        of_made(group, name, reasons) for name, table in tables.warehouse.items() for group in (table.group, WAREHOUSE)
    ]
    return [*(each for found in captured for each in found), *made]


def report(instance: dg.DagsterInstance, tables: Catalogue, examined: Examined) -> list[str]:
    """Report the checks that say something else than they said last. Returns the tables that are newly blocked.

    What was never said is taken for passed: the first materialisation says it.
    """
    found = evaluations(tables, examined)
    known = latest(instance, [each.asset_check_key for each in found])
    for each in found:
        if known.get(each.asset_check_key, (True, None)) != (each.passed, each.description):
            instance.report_runless_asset_event(each)
    before = {
        key.asset_key.path[-1] for key, (passed, _) in known.items() if key.name == CAN_BE_CAPTURED and not passed
    }
    return [table for table in examined.blocked if table not in before]


def waits(instance: dg.DagsterInstance, tables: Catalogue, group: str, table: str) -> dg.AssetCheckEvaluation:
    """What the check of a table says that is made of others, by the last look that Dagster knows of."""
    sources = {name: tables.source[name] for name in query_of(table).sources if name in tables.source}
    return of_made(group, table, blocked(instance, sources))


def blocked(instance: dg.DagsterInstance, sources: Mapping[str, Table]) -> dict[str, str]:
    """Source table -> why it cannot be captured, as was found by the last look that Dagster knows of."""
    keys = [dg.AssetCheckKey(dg.AssetKey([each.group, name]), CAN_BE_CAPTURED) for name, each in sources.items()]
    found = latest(instance, keys)
    return {key.asset_key.path[-1]: str(found[key][1]) for key in keys if key in found and not found[key][0]}


def latest(
    instance: dg.DagsterInstance, keys: list[dg.AssetCheckKey]
) -> dict[dg.AssetCheckKey, tuple[bool, str | None]]:
    """What each check said last: whether it passed, and its description. Only of those that were evaluated."""
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    found = {}
    for key, record in latest.items():
        event = record.event.dagster_event if record.event else None
        if event is not None and event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            found[key] = (evaluation.passed, evaluation.description)
    return found
