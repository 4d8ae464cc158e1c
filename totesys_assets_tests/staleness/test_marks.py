"""What is known to be new before any table is scanned: enough to begin what is slow, or not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from totesys_assets.days import ONE_DAY, DayRange
from totesys_assets.platform import Platform as Core
from totesys_assets.staleness.look import look
from totesys_assets_tests.conftest import Platform

pytestmark = pytest.mark.refreshed


def begun(core: Core, mark: str | None) -> tuple[bool, bool]:
    """Whether a look scans, and whether it begins what is slow before that."""
    calls: list[str] = []
    found = look(core, unless=mark, before_scan=lambda: calls.append("begun"))
    return not found.probed_only, bool(calls)


def test_a_new_day_alone_begins_nothing_slow(platform: Platform) -> None:
    core, mark = platform.core, look(platform.core).mark
    assert begun(core, mark) == (False, False)
    days = DayRange(core.all_days.first, core.all_days.last + ONE_DAY)
    assert begun(replace(core, all_days=days), mark) == (True, False)
    platform.sql("UPDATE sales_order SET units_sold = units_sold + 1")
    assert begun(replace(core, all_days=days), mark) == (True, True)
    assert begun(core, None) == (True, True)
