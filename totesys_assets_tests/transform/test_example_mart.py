"""The mart of docs/how-to/change.md, on a copy of the package: built, loaded, audited, replayed (examples/mart.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from totesys_assets_tests.project.test_changes_as_diffs import PROJECT, copy_of_the_package

EXAMPLE = PROJECT / "totesys_assets_tests" / "examples" / "mart.py"
# A second one, which is not partitioned, and reads a fact with all its versions.
_WHOLE_DDL = """
-- One row per design: how many versions of orders name it.
CREATE TABLE mart_design (
    design_name varchar PRIMARY KEY, -- its name
    versions bigint NOT NULL -- versions of sales orders
);
"""
# A third one reads its own fact whole too: beneath the calendar, and for the total.
_SHARE_DDL = """
-- One row per day: the bags of the day, and of all days.
CREATE TABLE mart_share (
    created_date date PRIMARY KEY, -- by day: day the orders were created (UTC)
    day_name varchar NOT NULL, -- its name
    units bigint NOT NULL, -- bags of the day
    total bigint NOT NULL -- bags of all versions of all orders
);
"""
_SHARE = """-- The bags of each day beside all that were ever ordered.
SELECT sale.created_date, calendar.day_name, SUM(sale.units_sold) AS units,
    (SELECT SUM(every.units_sold) FROM star.fact_sales_order AS every) AS total
FROM current.fact_sales_order AS sale
INNER JOIN star.dim_date AS calendar ON calendar.date_id = sale.created_date
GROUP BY sale.created_date, calendar.day_name
"""
_WHOLE = """-- How often each design is named.
SELECT design.design_name, COUNT(*) AS versions
FROM star.fact_sales_order AS sale
INNER JOIN star.dim_design AS design ON design.design_id = sale.design_id
GROUP BY design.design_name
"""


def test_a_mart_is_its_select_and_its_ddl(tmp_path: Path) -> None:
    assert "4 passed" in tried(tmp_path)


@pytest.mark.thorough
def test_a_mart_is_audited_replayed_made_anew_and_goes_on_with_another_lake(tmp_path: Path) -> None:
    assert "5 passed" in tried(tmp_path, "-m", "thorough")


def tried(folder: Path, *options: str) -> str:
    """What pytest said of the example, on a copy of the package that has the marts."""
    package = copy_of_the_package("A mart", folder / "package")
    with (package / "totesys_assets/catalogue/marts.sql").open("a", encoding="utf-8") as marts:
        marts.write(_WHOLE_DDL + _SHARE_DDL)
    (package / "totesys_assets/marts/mart_share.sql").write_text(_SHARE, encoding="utf-8")
    (package / "totesys_assets/marts/mart_design.sql").write_text(_WHOLE, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:cov", "-n", "0"]
    ran = subprocess.run(
        [*command, *options, "--rootdir", str(PROJECT), "-c", str(PROJECT / "pyproject.toml"), str(EXAMPLE)],
        cwd=package,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(package), str(PROJECT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    return ran.stdout
