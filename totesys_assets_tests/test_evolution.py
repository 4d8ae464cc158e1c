"""A column more in ToteSys: told to the catalogue, it arrives everywhere, and history stays as it was."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pyarrow as pa

from totesys_assets.capture.difference import capture
from totesys_assets.catalogue.catalogue import Column, catalogue
from totesys_assets.days import DayRange
from totesys_assets.resources import engine
from totesys_assets.resources.lake import register
from totesys_assets_tests.conftest import Platform


def test_a_new_column_of_the_catalogue_is_added_to_the_lake_and_its_values_are_new_versions(platform: Platform) -> None:
    table = catalogue().source["design"]
    days = DayRange(date(2024, 8, 19), date(2024, 8, 22))
    with platform.totesys.snapshot() as snapshot:
        capture(snapshot, platform.lake, table, all_days=days, days=None, run_id="before")
    platform.sql("ALTER TABLE design ADD COLUMN colour text DEFAULT 'red'")
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
