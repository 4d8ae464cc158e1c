"""Blocked: which tables of ToteSys cannot be captured, and what waits for them, as checks of the assets.

Belongs here: what the checks claim, and reporting a change of them. Does not belong here: finding it out (look.py), and
telling people (alerts.py).

Checks, because Dagster shows them where one looks: on the asset, in the graph and in the catalogue. Nothing else turns
red when a table is blocked: no run is started for it, and its last materialisation stays green.
"""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from totesys_assets.automation.decide import STAR, TOTESYS, WAREHOUSE
from totesys_assets.automation.look import Examined
from totesys_assets.catalogue.catalogue import Catalogue
from totesys_assets.catalogue.star import star_query

CAN_BE_CAPTURED, NO_NEW_COLUMNS, UPSTREAM_CAPTURED = "can_be_captured", "no_new_columns", "upstream_captured"
CLAIMS = {
    CAN_BE_CAPTURED: "The table is there, readable and as the catalogue says. Where it is not, nothing of it arrives.",
    NO_NEW_COLUMNS: "ToteSys has no column in this table that the catalogue has not. One that it has is left out.",
    UPSTREAM_CAPTURED: "Every table of ToteSys that this one is made of can be captured. Else it waits for that.",
}


def checks(catalogue: Catalogue) -> list[dg.AssetCheckSpec]:
    """The checks, two of every captured table, one of everything that is made of those."""
    return [
        dg.AssetCheckSpec(key.name, asset=key.asset_key, description=CLAIMS[key.name]) for key in check_keys(catalogue)
    ]


def check_keys(catalogue: Catalogue) -> list[dg.AssetCheckKey]:
    """Their keys."""
    return [each.asset_check_key for each in evaluations(catalogue, Examined())]


def evaluations(catalogue: Catalogue, examined: Examined) -> list[dg.AssetCheckEvaluation]:
    """What each of the checks says of tables that are as ``examined``."""
    reasons = {table: str(problem) for table, problem in examined.blocked.items()}
    return [*_of_captured(catalogue, examined, reasons), *_of_what_is_made(catalogue, reasons)]


def _of_captured(
    catalogue: Catalogue, examined: Examined, reasons: dict[str, str]
) -> Iterator[dg.AssetCheckEvaluation]:
    for table in catalogue.source:
        yield _evaluation(TOTESYS, table, CAN_BE_CAPTURED, reasons.get(table))
        if table in reasons:
            continue  # nobody knows which columns would be left out
        unknown = ", ".join(f'"{column}"' for column in examined.unknown.get(table, []))
        yield _evaluation(
            TOTESYS,
            table,
            NO_NEW_COLUMNS,
            f'Not captured of table "{table}": {unknown}. Add what is wanted of it to catalogue/totesys.sql; the next '
            "refresh then brings in its values."
            if unknown
            else None,
            dg.AssetCheckSeverity.WARN,
        )


def _of_what_is_made(catalogue: Catalogue, reasons: dict[str, str]) -> Iterator[dg.AssetCheckEvaluation]:
    for group in (STAR, WAREHOUSE):
        for table in catalogue.star:
            waits = [
                f"Waits for {TOTESYS}/{name}: {reasons[name]}" for name in star_query(table).sources if name in reasons
            ]
            yield _evaluation(group, table, UPSTREAM_CAPTURED, " ".join(waits) or None, dg.AssetCheckSeverity.WARN)


def _evaluation(
    group: str,
    table: str,
    check: str,
    wrong: str | None,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey([group, table]),
        check_name=check,
        passed=wrong is None,
        severity=severity,
        description=wrong,
        metadata={},
    )


def report(instance: dg.DagsterInstance, catalogue: Catalogue, examined: Examined) -> list[str]:
    """Report the checks that say something else than they said last. Returns the tables that are newly blocked."""
    found = evaluations(catalogue, examined)
    known = _latest(instance, [each.asset_check_key for each in found])
    for each in found:
        if known.get(each.asset_check_key) != (each.passed, each.description):
            instance.report_runless_asset_event(each)
    before = {
        key.asset_key.path[-1] for key, (passed, _) in known.items() if key.name == CAN_BE_CAPTURED and not passed
    }
    return [table for table in examined.blocked if table not in before]


def blocked(instance: dg.DagsterInstance, catalogue: Catalogue) -> dict[str, str]:
    """Table of ToteSys -> why it cannot be captured, as was found by the last look that Dagster knows of."""
    keys = [key for key in check_keys(catalogue) if key.name == CAN_BE_CAPTURED]
    found = _latest(instance, keys)
    return {key.asset_key.path[-1]: str(found[key][1]) for key in keys if key in found and not found[key][0]}


def _latest(
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
