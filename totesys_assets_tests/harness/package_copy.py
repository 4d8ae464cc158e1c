"""Copies of the package with the changes of docs/how-to/change.md: with marts over the star, with files as a source.

Belongs here: making a copy, and the environment of programs that import it in the place of the package. Does not
belong here: what is looked at in them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "how-to" / "change.md").read_text(encoding="utf-8")
# The heading of a section -> its diff.
DIFFS = {
    section.partition("\n")[0]: re.findall(r"^```diff\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[0]
    for section in PAGE.split("\n## ")
    if "```diff" in section
}
MART, FILES = "A mart", "Another source"

# Beside the mart of the page, one that is not partitioned and reads a fact with all its versions, and one that reads
# its own fact whole too: beneath the calendar, and for the total.
_MORE_MARTS_DDL = """
-- One row per design: how many versions of orders name it.
CREATE TABLE mart_design (
    design_name varchar PRIMARY KEY, -- its name
    versions bigint NOT NULL -- versions of sales orders
);

-- One row per day: the bags of the day, and of all days.
CREATE TABLE mart_share (
    created_date date PRIMARY KEY, -- by day: day the orders were created (UTC)
    day_name varchar NOT NULL, -- its name
    units bigint NOT NULL, -- bags of the day
    total bigint NOT NULL -- bags of all versions of all orders
);
"""
_MORE_MARTS = {
    "mart_design": """-- How often each design is named.
SELECT design.design_name, COUNT(*) AS versions
FROM star.fact_sales_order AS sale
INNER JOIN star.dim_design AS design ON design.design_id = sale.design_id
GROUP BY design.design_name
""",
    "mart_share": """-- The bags of each day beside all that were ever ordered.
SELECT sale.created_date, calendar.day_name, SUM(sale.units_sold) AS units,
    (SELECT SUM(every.units_sold) FROM star.fact_sales_order AS every) AS total
FROM current.fact_sales_order AS sale
INNER JOIN star.dim_date AS calendar ON calendar.date_id = sale.created_date
GROUP BY sale.created_date, calendar.day_name
""",
}


def copy_of_the_package(folder: Path, *headings: str) -> Path:
    """``folder`` with a copy of the package to which the diffs under ``headings`` were applied."""
    if shutil.which("git") is None:
        pytest.skip("git, which applies the diffs, is not installed")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "totesys_assets", folder / "totesys_assets", ignore=ignore)
    shutil.copytree(PROJECT / "deploy" / "sql", folder / "deploy" / "sql")
    for heading in headings:
        subprocess.run(["git", "apply", "-"], cwd=folder, input=DIFFS[heading], text=True, check=True)
    return folder


def add_more_marts(package: Path) -> None:
    """Give a copy that has the mart of the page two more, of other kinds."""
    with (package / "totesys_assets/catalogue/marts.sql").open("a", encoding="utf-8") as marts:
        marts.write(_MORE_MARTS_DDL)
    for name, select in _MORE_MARTS.items():
        (package / f"totesys_assets/marts/{name}.sql").write_text(select, encoding="utf-8")


def environment(package: Path) -> dict[str, str]:
    """The environment of a program that imports the copy, and everything else from this repository."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), str(PROJECT)])}
