"""An audit beside a refresh: what is captured while it looks waits for the next refresh, and differs from nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from totesys_assets.audit import observed
from totesys_assets.audit.audit import audit
from totesys_assets.audit.findings import CONTENT, MONEY, ROWS, Finding
from totesys_assets.capture.difference import capture
from totesys_assets.capture.ledger import Ledger
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.lake.tables import Lake
from totesys_assets.names import WAREHOUSE
from totesys_assets.platform import Platform as Core
from totesys_assets.source.shared_snapshot import OpenSnapshots
from totesys_assets.staleness import look
from totesys_assets.staleness.following import begin_following, end_following
from totesys_assets_tests.conftest import Platform

# Where an audit is interrupted by a capture: after it has called this.
INTERRUPTED = {
    "between the ledger and the lake": (Ledger, "newest"),
    "after the lake was opened": (observed, "open_dead_letters"),
    "before it reads what the log says": (look, "prepared"),
}


@pytest.fixture
def core(followed: Platform) -> Iterator[Core]:
    """A platform whose warehouse has what the log told of the orders."""
    core = followed.core
    for bags in (1001, 1002):
        begin_following(core)
        followed.sql(f"UPDATE sales_order SET units_sold = {bags}")
        for request in look.look(core).requests:
            assert followed.run(request).success
    assert red(audit(core)) == []
    yield core
    end_following(core)


def red(findings: list[Finding]) -> list[str]:
    return [f"{each.asset} {each.check}: {each.detail}" for each in findings if each.outcome == "different"]


def interrupt(patch: pytest.MonkeyPatch, where: tuple[Any, str], table: Table, done: Callable[[], object]) -> None:
    """Call ``done`` once, after the first call of what is named: of what is about tables, of that about ``table``."""
    waiting, called = [done], getattr(*where)

    def once(*args: Any, **kwargs: Any) -> Any:
        result = called(*args, **kwargs)
        if waiting and {each.name for each in args if isinstance(each, Table)} <= {table.name}:
            waiting.pop()()
        return result

    patch.setattr(*where, once)


@pytest.mark.parametrize("where", INTERRUPTED.values(), ids=INTERRUPTED)
def test_what_is_captured_while_the_audit_looks_differs_from_nothing(
    followed: Platform, core: Core, monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str]
) -> None:
    table = core.catalogue.source["sales_order"]
    other = Lake(core.lake.uri)
    followed.sql("UPDATE sales_order SET units_sold = 1003")
    captured = []

    def refresh() -> None:
        captured.append(
            capture(
                snapshots.now[table.group],
                other,
                table,
                all_days=core.all_days,
                days=core.all_days,
                run_id="another refresh",
                changes_only=True,
            ).versions
        )

    with closing(OpenSnapshots(core.sources)) as snapshots:
        interrupt(monkeypatch, where, table, refresh)
        findings = audit(core)
    assert captured == [1]
    assert red(findings) == []
    waiting = {(each.asset, each.check): each.pending for each in findings}
    assert waiting[table.asset, CONTENT] == 1
    assert {waiting[f"{WAREHOUSE}/fact_sales_order", check] for check in (ROWS, MONEY)} == {1}
