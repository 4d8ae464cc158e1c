"""What waits for a refresh is overdue only where the last one should have brought it in."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from totesys_assets.commands import main
from totesys_assets_tests.conftest import Platform


def run(command: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, [command])
    return result.exit_code, " ".join(result.output.split())


def test_what_is_compared_anew_because_the_log_was_switched_off_is_not_overdue(
    followed: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("refresh")[0] == 0  # from here on the log is followed
    followed.sql("UPDATE sales_order SET units_sold = 2000")
    assert run("refresh")[0] == 0
    assert "Nothing changed" in run("refresh")[1]  # its mark says so
    monkeypatch.setenv("TOTESYS_LOG", "off")
    code, said = run("audit")
    assert (code, "the mark of the last one" in said) == (0, False), said
    assert "pending" in said  # days whose states the log noted, which are no fingerprints
    assert run("refresh")[0] == 0
    assert "pending" not in run("audit")[1]
