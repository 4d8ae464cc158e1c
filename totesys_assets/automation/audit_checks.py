"""The audit as asset checks: what the platform guarantees for its tables, and the rules of the business.

Belongs here: one check for each finding. Does not belong here: what an audit compares, which is audit/.
"""

from collections.abc import Iterable, Iterator

import dagster as dg

from totesys_assets.assets.describe import failures
from totesys_assets.audit import rules
from totesys_assets.audit.audit import audit, checks
from totesys_assets.audit.findings import CLAIMS, Finding
from totesys_assets.audit.noted import note_findings
from totesys_assets.automation.records import mark_of_sensor
from totesys_assets.catalogue.catalogue import Catalogue
from totesys_assets.days import partition_range
from totesys_assets.lake.tables import Lake
from totesys_assets.names import TOTESYS
from totesys_assets.platform import Platform
from totesys_assets.settings import Settings
from totesys_assets.source.shared_snapshot import SharedSnapshots
from totesys_assets.staleness.mark import read_mark
from totesys_assets.warehouse.warehouse import Warehouse


def audit_checks(catalogue: Catalogue, settings: Settings) -> dg.AssetChecksDefinition:
    """All checks of the audit, in one step, so that they see the same instant. Any of them can be run alone."""

    @dg.multi_asset_check(
        name="audit_checks",
        specs=list(_specs(catalogue)),
        can_subset=True,
        description="Compares the sources, the lake and the warehouse by digests that each computes itself.",
    )
    def _audit(
        context: dg.AssetCheckExecutionContext,
        shared_snapshots: dg.ResourceParam[SharedSnapshots],
        lake: dg.ResourceParam[Lake],
        warehouse: dg.ResourceParam[Warehouse],
    ) -> Iterable[dg.AssetCheckResult]:
        chosen = [("/".join(key.asset_key.path), key.name) for key in context.selected_asset_check_keys]
        whole = len(chosen) == len(list(_specs(catalogue)))
        with failures():
            found = audit(
                Platform(shared_snapshots.sources, lake, warehouse, partition_range(settings.first_day)),
                sorted(chosen),
                marks=[mark for mark in (read_mark(settings.home), mark_of_sensor(context.instance)) if mark],
            )
        if unnoted := note_findings(warehouse, found, whole=whole, run_id=context.run.run_id):
            context.log.warning(unnoted)
        for finding in found:
            yield _result(finding)

    return _audit


def _specs(catalogue: Catalogue) -> Iterator[dg.AssetCheckSpec]:
    for asset, check in checks(catalogue):
        yield dg.AssetCheckSpec(check, asset=_key(asset), description=CLAIMS[check])
    for rule in rules.RULES:
        yield dg.AssetCheckSpec(rule.name, asset=_key(f"{TOTESYS}/{rule.table}"), description=rule.claim)


def _result(finding: Finding) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=_key(finding.asset),
        check_name=finding.check,
        passed=finding.passed,
        severity=dg.AssetCheckSeverity.WARN if finding.warning else dg.AssetCheckSeverity.ERROR,
        description=finding.detail,
        metadata={"partitions_pending": finding.pending, **finding.numbers},
    )


def _key(asset: str) -> dg.AssetKey:
    return dg.AssetKey(asset.split("/"))
