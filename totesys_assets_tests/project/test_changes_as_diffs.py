"""docs/how-to/change.md shows whole changes: each diff fits the code, and assets and lineage follow from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from totesys_assets_tests.harness.package_copy import DIFFS, FILES, MART, copy_of_the_package

_SEEN = """
import json
from totesys_assets.assets.describe import query_lineage
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.definitions import build_definitions
tables = catalogue()
print(json.dumps({
    "assets": ["/".join(spec.key.path) for spec in build_definitions().resolve_all_asset_specs()],
    "every": {sensor.name: sensor.minimum_interval_seconds for sensor in build_definitions().sensors},
    "columns": {name: list(table.by_name) for name, table in (tables.source | tables.star).items()},
    "lineage": {
        name: {column: ["/".join([*dep.asset_key.path, dep.column_name]) for dep in deps]
               for column, deps in query_lineage(tables, table).deps_by_column.items()}
        for name, table in tables.star.items()
    },
}))
"""


def changed(heading: str, folder: Path) -> dict[str, Any]:
    """What a copy of the package says of itself once the diff under ``heading`` is applied to it."""
    copy_of_the_package(folder, heading)
    environment = {**os.environ, "PYTHONPATH": str(folder), "TOTESYS_HOME": str(folder / "home")}
    seen = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SEEN],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert seen.returncode == 0, seen.stderr
    found: dict[str, Any] = json.loads(seen.stdout)
    return found


def test_a_column_is_three_lines(tmp_path: Path) -> None:
    found = changed("A column", tmp_path)
    assert "discount" in found["columns"]["sales_order"]
    assert "discount" in found["columns"]["fact_sales_order"]
    assert found["lineage"]["fact_sales_order"]["discount"] == ["totesys/sales_order/discount"]


def test_a_table_of_the_source_and_its_dimension_are_their_ddl_a_select_and_a_grant(tmp_path: Path) -> None:
    found = changed("A table of ToteSys, and its dimension", tmp_path)
    new = {"totesys/shipping_method", "star/dim_shipping_method", "warehouse/dim_shipping_method"}
    assert new <= set(found["assets"])
    name = found["lineage"]["dim_shipping_method"]["shipping_method_name"]
    assert name == ["totesys/shipping_method/shipping_method_name"]


def test_another_source_is_a_module_and_its_ddl(tmp_path: Path) -> None:
    found = changed(FILES, tmp_path)
    assert {"sheets/budget", "sheets/bank_rate", "star/dim_budget"} <= set(found["assets"])
    assert found["lineage"]["dim_budget"]["amount"] == ["sheets/budget/amount"]


def test_the_frequency_of_the_sensor_is_two_numbers_in_one_place(tmp_path: Path) -> None:
    assert changed("How often ToteSys is looked at", tmp_path)["every"]["changes"] == 60


def test_every_diff_of_the_page_is_tried() -> None:
    tried = ["A column", "A table of ToteSys, and its dimension", MART, FILES]  # MART by transform/test_example_mart.py
    assert list(DIFFS) == [*tried, "How often ToteSys is looked at"]
