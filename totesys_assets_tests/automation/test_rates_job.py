"""The job that fetches rates, and its schedule: it runs where there is an address, and fails in a sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from totesys_assets.automation.jobs import fetch_rates_job
from totesys_assets.definitions import build_definitions
from totesys_assets.errors import ConnectionFailed
from totesys_assets.settings import Settings
from totesys_assets.source.fetched_rates import Fetched

pytestmark = pytest.mark.pure


def settings(folder: Path, url: str | None = None) -> Settings:
    return Settings.from_env({"TOTESYS_HOME": str(folder), **({"TOTESYS_RATES_URL": url} if url else {})})


def test_the_schedule_runs_only_where_there_is_an_address(tmp_path: Path) -> None:
    for url, status in ((None, "STOPPED"), ("https://example.com/rates.zip", "RUNNING")):
        schedule = build_definitions(settings(tmp_path, url)).resolve_schedule_def("rates_after_publication")
        assert schedule.default_status.value == status
        assert (schedule.cron_schedule, schedule.execution_timezone) == ("20 16,18 * * 1-5", "Europe/Berlin")


def test_what_a_fetch_says_is_in_the_log_and_what_fails_it_is_the_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    job = fetch_rates_job(settings(tmp_path, "https://example.com/rates.zip"))
    done = Fetched("rates/eurofxref-2024-09-03.zip", "2024-09-03", True, ("USD 1 to 2",))
    monkeypatch.setattr("totesys_assets.automation.jobs.fetch_rates", lambda _: done)
    assert job.execute_in_process().success
    said = capfd.readouterr().err
    assert "rates up to 2024-09-03" in said
    assert "More than a tenth in a day: USD 1 to 2" in said

    def fail(_: Settings) -> Fetched:
        raise ConnectionFailed("The rates were not fetched.")

    monkeypatch.setattr("totesys_assets.automation.jobs.fetch_rates", fail)
    with pytest.raises(dg.Failure, match="The rates were not fetched"):
        job.execute_in_process()


def test_the_library_that_fetches_is_imported_only_for_a_fetch() -> None:
    code = (
        "import sys, totesys_assets.refresh, totesys_assets.definitions as d; d.build_definitions(); "
        "print({'httpx', 'boto3', 'botocore'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
