"""An audit, or a capture, beside another capture of what the log tells: nothing looks wrong, or comes twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from totesys_assets import engine
from totesys_assets.audit import observed
from totesys_assets.audit.audit import audit
from totesys_assets.audit.findings import CONTENT, MONEY, ROWS, Finding
from totesys_assets.capture import logged
from totesys_assets.capture.difference import capture
from totesys_assets.capture.ledger import Ledger
from totesys_assets.capture.pruning import prune
from totesys_assets.catalogue.catalogue import RECORDED_AT, Table
from totesys_assets.errors import StaleSnapshot
from totesys_assets.lake.read import register
from totesys_assets.lake.tables import INGESTION, JOURNAL, Lake
from totesys_assets.names import WAREHOUSE
from totesys_assets.platform import Platform as Core
from totesys_assets.source.shared_snapshot import OpenSnapshots
from totesys_assets.staleness import look
from totesys_assets.staleness.following import begin_following, end_following
from totesys_assets_tests.conftest import Followed, Platform, begin_followed

# Where an audit is interrupted by a capture: after it has called this.
INTERRUPTED = {
    "between the ledger and the lake": (Ledger, "newest"),
    "after the lake was opened": (observed, "open_dead_letters"),
    "before it reads what the log says": (look, "prepared"),
}


def follow(platform: Platform) -> None:
    """Let the warehouse have what the log tells of the orders."""
    core = platform.core
    platform.refresh()
    for bags in (1001, 1002):
        begin_following(core)
        platform.sql(f"UPDATE sales_order SET units_sold = {bags}")
        for request in look.look(core).requests:
            assert platform.run(request).success
    assert red(audit(core)) == []
    end_following(core)


@pytest.fixture(scope="module")
def followed_beginning(scratch: Path) -> Followed:
    """Another beginning than the one of other modules: the log has told of the orders."""
    return begin_followed(scratch / "followed_orders", follow)


@pytest.fixture
def core(followed: Platform) -> Iterator[Core]:
    """The platform whose warehouse has what the log told of the orders."""
    core = followed.core
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


def capture_orders(core: Core, snapshots: OpenSnapshots) -> int:
    """What another process captures of the orders of a snapshot: how many versions."""
    table = core.catalogue.source["sales_order"]
    return capture(
        snapshots.now[table.group],
        Lake(core.lake.uri),
        table,
        all_days=core.all_days,
        days=core.all_days,
        run_id="another refresh",
        changes_only=True,
    ).versions


def units(core: Core) -> list[int]:
    """Of the versions of the one order that the lake has, in their order."""
    with engine.session() as connection:
        held = Lake(core.lake.uri).find(INGESTION, "sales_order")
        assert held is not None
        versions = register(connection, "held", held)
        return [
            row[0] for row in connection.execute(f"SELECT units_sold FROM {versions} ORDER BY {RECORDED_AT}").fetchall()
        ]


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(where, id=name, marks=[pytest.mark.thorough] if number else [])  # also tried below
        for number, (name, where) in enumerate(INTERRUPTED.items())
    ],
)
def test_what_is_captured_while_the_audit_looks_differs_from_nothing(
    followed: Platform, core: Core, monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str]
) -> None:
    table = core.catalogue.source["sales_order"]
    followed.sql("UPDATE sales_order SET units_sold = 1003")
    captured = []
    with closing(OpenSnapshots(core.sources)) as snapshots:
        interrupt(monkeypatch, where, table, lambda: captured.append(capture_orders(core, snapshots)))
        findings = audit(core)
    assert captured == [1]
    assert red(findings) == []
    waiting = {(each.asset, each.check): each.pending for each in findings}
    assert waiting[table.asset, CONTENT] == 1
    assert {waiting[f"{WAREHOUSE}/fact_sales_order", check] for check in (ROWS, MONEY)} == {1}


@pytest.mark.parametrize("where", list(INTERRUPTED.values())[1:], ids=list(INTERRUPTED)[1:])
def test_what_is_captured_and_goes_from_the_journal_while_the_audit_looks_differs_from_nothing(
    followed: Platform, core: Core, monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str]
) -> None:
    followed.sql("UPDATE sales_order SET units_sold = 1003")
    gone: list[int] = []

    def capture_and_prune() -> None:
        capture_orders(core, snapshots)
        gone.append(prune(Lake(core.lake.uri), datetime.now(UTC).date() + timedelta(days=9)))

    with closing(OpenSnapshots(core.sources)) as snapshots:
        interrupt(monkeypatch, where, core.catalogue.source["sales_order"], capture_and_prune)
        findings = audit(core)
    assert gone[0] > 0
    assert red(findings) == []


@pytest.mark.parametrize(
    "anew",
    [pytest.param(False, marks=pytest.mark.thorough), True],
    ids=["removed", "removed and begun anew"],
)
def test_a_journal_that_goes_while_the_audit_looks_tells_nothing(
    followed: Platform, core: Core, monkeypatch: pytest.MonkeyPatch, anew: bool
) -> None:
    followed.sql("UPDATE sales_order SET units_sold = 1003")
    removed = []

    def remove() -> None:
        shutil.rmtree(core.lake.location(JOURNAL))
        removed.append(JOURNAL)
        if anew:
            begin_following(replace(core, lake=Lake(core.lake.uri)))

    interrupt(
        monkeypatch, INTERRUPTED["before it reads what the log says"], core.catalogue.source["sales_order"], remove
    )
    findings = audit(core)
    assert removed == [JOURNAL]
    assert red(findings) == []


def test_a_capture_takes_nothing_from_the_journal_that_another_took_meanwhile(
    followed: Platform, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = units(core)
    for bags in (1003, 1004):
        followed.sql(f"UPDATE sales_order SET units_sold = {bags}")
    with closing(OpenSnapshots(core.sources)) as earlier:
        followed.sql("UPDATE sales_order SET units_sold = 1005")
        with closing(OpenSnapshots(core.sources)) as later:
            table = core.catalogue.source["sales_order"]
            interrupt(monkeypatch, (logged, "prepared"), table, lambda: capture_orders(core, earlier))
            with pytest.raises(StaleSnapshot, match="refresh again"):
                capture_orders(core, later)
            assert units(core) == [*before, 1003, 1004]
            assert capture_orders(core, later) == 1
    assert units(core) == [*before, 1003, 1004, 1005]


def test_a_table_of_an_older_version_that_has_no_rows_is_compared(followed: Platform, core: Core) -> None:
    followed.sql("DELETE FROM payment")
    for _ in range(2):
        begin_following(core)
        for request in look.look(core).requests:
            assert followed.run(request, accept_deletions=True).success
    (first, *_) = sorted(Path(core.lake.location(INGESTION, "payment"), "_delta_log").glob("*.json"))
    lines = [json.loads(line) for line in first.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        if "metaData" in line:
            schema = json.loads(line["metaData"]["schemaString"])
            schema["fields"] = [each for each in schema["fields"] if each["name"] != "counterparty_ac_number"]
            line["metaData"]["schemaString"] = json.dumps(schema)
    first.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    followed.sql(
        "INSERT INTO payment VALUES (2, '2024-08-20 09:10:11.123', '2024-08-20 09:10:11.123', 1, 1, 2432.43, 3, 1, "
        "false, '2024-08-23', 12345678, 87654321)"
    )
    seen = look.look(replace(core, lake=Lake(core.lake.uri)))
    assert seen.problems == []
    assert seen.stale["totesys/payment"] == {"2024-08-20"}
