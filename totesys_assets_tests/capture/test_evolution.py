"""A column more in ToteSys: told to the catalogue, it arrives everywhere, and history stays as it was."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pyarrow as pa
import pytest

from totesys_assets import engine
from totesys_assets.capture.difference import capture
from totesys_assets.capture.registry import structures
from totesys_assets.catalogue.catalogue import Catalogue, Column, catalogue
from totesys_assets.days import DayRange
from totesys_assets.errors import SchemaDrift
from totesys_assets.lake.read import register
from totesys_assets.platform import Platform as Core
from totesys_assets.source.totesys import Totesys
from totesys_assets.staleness.look import Look, look
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.conftest import Platform


def test_a_new_column_of_the_catalogue_is_added_to_the_lake_and_its_values_are_new_versions(platform: Platform) -> None:
    table = catalogue().source["design"]
    days = DayRange(date(2024, 8, 19), date(2024, 8, 22))
    with platform.totesys.snapshot() as snapshot:
        capture(snapshot, platform.lake, table, all_days=days, days=None, run_id="before")
    platform.sql("ALTER TABLE design ADD COLUMN colour text DEFAULT 'red'")
    with platform.totesys.snapshot() as snapshot:  # the catalogue does not know it yet: the others are captured
        captured = capture(snapshot, platform.lake, table, all_days=days, days=None, run_id="between")
    assert captured.versions == 0
    colour = Column("colour", "text", pa.string(), nullable=True, description="colour of the bag")
    wider = replace(table, columns=(*table.columns, colour))
    with platform.totesys.snapshot() as snapshot:
        captured = capture(snapshot, platform.lake, wider, all_days=days, days=None, run_id="after")
    assert captured.total("updated") == 1
    connection = engine.connect()
    rows = register(connection, "versions", platform.lake.open_versions(wider))
    assert connection.execute(f"SELECT design_name, colour FROM {rows} ORDER BY _recorded_at").fetchall() == [
        ("Wooden", None),
        ("Wooden", "red"),
    ]
    connection.close()


@pytest.mark.refreshed
def test_a_new_nullable_column_stops_its_table_only_where_it_is_set_so(platform: Platform) -> None:
    platform.sql("ALTER TABLE design ADD COLUMN colour text")
    careful = Totesys(platform.totesys_url, allow_superuser=True, ignores_new=False)
    design = catalogue().source["design"]
    with careful.snapshot() as snapshot, pytest.raises(SchemaDrift, match=r'"colour" \(text\) is new'):
        snapshot.require(design)
    seen = platform.look()
    assert (seen.problems, seen.examined.unknown) == ([], {"design": ["colour"]})
    platform.refresh()
    assert structures(platform.lake, "design")[-1].columns["colour"] == "text"
    assert platform.look().stale == {}
    platform.sql("ALTER TABLE design ALTER COLUMN design_name TYPE varchar(80)")
    (problem,) = platform.look().problems
    assert '"colour"' not in str(problem)


@pytest.mark.refreshed
def test_the_probe_does_not_stop_at_a_source_that_is_quiet_but_to_be_read_otherwise(platform: Platform) -> None:
    """The source has the column already; that it is wanted, or in the way, is said by nobody but us."""
    platform.sql("ALTER TABLE design ADD COLUMN colour text DEFAULT 'red'")
    platform.refresh()
    mark = platform.look().mark
    assert mark is not None

    def again(totesys: Totesys, tables: Catalogue | None = None) -> Look:
        warehouse = Warehouse(platform.warehouse_url, platform.settings.warehouse_schema, tables)
        others = [source for source in platform.core.sources if source.name != totesys.name]
        return look(Core((totesys, *others), platform.lake, warehouse, platform.all_days), unless=mark)

    assert again(platform.totesys).probed_only
    colour = Column("colour", "text", pa.string(), nullable=True, description="colour of the bag")
    design = catalogue().source["design"]
    wider = replace(design, columns=(*design.columns, colour))
    tables = replace(catalogue(), source={**catalogue().source, "design": wider})
    assert "totesys/design" in again(Totesys(platform.totesys_url, tables, allow_superuser=True), tables).stale
    careful = Totesys(platform.totesys_url, allow_superuser=True, ignores_new=False)
    assert [str(problem) for problem in again(careful).problems if '"colour" (text) is new' in str(problem)]
    elsewhere = again(Totesys(platform.totesys_url, allow_superuser=True, schema="elsewhere"))
    assert [str(problem) for problem in elsewhere.problems if 'in schema "elsewhere"' in str(problem)]
