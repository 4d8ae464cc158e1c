"""What an audit found is noted in the warehouse for readers, and no audit fails for want of the note."""

from __future__ import annotations

import psycopg
import pytest
from click.testing import CliRunner

from totesys_assets.audit import rules
from totesys_assets.audit.audit import checks
from totesys_assets.audit.findings import CONTENT, Finding
from totesys_assets.audit.noted import note_findings
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.commands import main
from totesys_assets_tests.conftest import Platform

ALL = [*checks(catalogue()), *rules.checks()]
NOTED = "SELECT asset, check_name, outcome, detail, run_id FROM _finding ORDER BY 1, 2"
FOUND = Finding("totesys/payment", CONTENT, False, "1 day differs: 2024-08-20")


def in_warehouse(platform: Platform, statement: str) -> None:
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute(statement.encode())


@pytest.mark.refreshed
def test_a_whole_audit_replaces_what_was_noted_before(platform: Platform) -> None:
    in_warehouse(platform, "INSERT INTO _finding VALUES ('star/gone', 'gone', 'different', 'of old', NULL, now())")
    in_warehouse(platform, "UPDATE fact_payment SET payment_amount = 7")
    assert CliRunner().invoke(main, ["audit"]).exit_code == 1
    noted = platform.query(NOTED)
    assert {(asset, check) for asset, check, *_ in noted} == set(ALL)
    assert len(noted) == len(ALL)
    assert ("warehouse/fact_payment", "money_equals_source", "different") in {row[:3] for row in noted}
    assert {run_id for *_, run_id in noted} == {None}


@pytest.mark.refreshed
def test_dagsters_audit_notes_its_run_and_one_of_some_checks_leaves_the_others(platform: Platform) -> None:
    in_warehouse(platform, "INSERT INTO _finding VALUES ('star/gone', 'gone', 'different', 'of old', NULL, now())")
    job = platform.definitions().resolve_job_def("audit")
    result = job.execute_in_process(instance=platform.instance)
    assert result.success
    noted = platform.query(NOTED)
    assert len(noted) == len(ALL)
    assert {run_id for *_, run_id in noted} == {result.run_id}
    assert note_findings(platform.warehouse, [FOUND], whole=False, run_id="another") is None
    after = platform.query(NOTED)
    assert len(after) == len(ALL)
    assert set(after) - set(noted) == {(FOUND.asset, CONTENT, "different", FOUND.detail, "another")}


@pytest.mark.refreshed
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("DROP TABLE _finding", "has no table _finding yet"),
        ("ALTER TABLE _finding ADD CHECK (detail = '')", "could not be noted in the warehouse"),
    ],
)
def test_an_audit_that_cannot_be_noted_says_so_and_does_not_fail(platform: Platform, broken: str, said: str) -> None:
    in_warehouse(platform, broken)
    told = CliRunner().invoke(main, ["audit"])
    assert told.exit_code == 0
    assert said in " ".join(told.output.split())
    job = platform.definitions().resolve_job_def("audit")
    result = job.execute_in_process(instance=platform.instance)
    assert result.success
    assert all(each.passed for each in result.get_asset_check_evaluations())
