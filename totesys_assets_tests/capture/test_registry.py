"""The schema registry: how the tables of ToteSys were seen to be, version by version."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from totesys_assets.capture.registry import CAPTURED, REFUSED, note, structures
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.commands import main
from totesys_assets_tests.conftest import Platform


def story(platform: Platform, table: str) -> list[tuple[int, str, list[str]]]:
    found = structures(platform.lake, table)
    before = [None, *found]
    return [(each.version, each.status, each.changes(before[place])) for place, each in enumerate(found)]


@pytest.mark.refreshed
def test_every_table_is_noted_once_with_its_columns_and_types(platform: Platform) -> None:
    platform.sql("UPDATE design SET design_name = 'Plastic'")
    platform.refresh()
    found = structures(platform.lake)
    assert [(each.table, each.version, each.status) for each in found] == [
        (name, 1, CAPTURED) for name in sorted(catalogue().source)
    ]
    [design] = structures(platform.lake, "design")
    assert design.columns == {column.name: column.type for column in catalogue().source["design"].columns}


@pytest.mark.refreshed
def test_a_drift_is_noted_as_refused_and_what_came_of_it_too(platform: Platform) -> None:
    platform.sql("ALTER TABLE design ADD COLUMN colour text NOT NULL DEFAULT 'red'")
    for _ in range(2):  # noted once, however often it is seen
        assert ['"colour" (text) is new' in str(problem) for problem in platform.look().problems] == [True]
    platform.sql("ALTER TABLE design DROP COLUMN colour, ALTER COLUMN file_name TYPE varchar(99)")
    platform.look()
    platform.sql("ALTER TABLE design ALTER COLUMN file_name TYPE text")
    platform.refresh()
    assert story(platform, "design") == [
        (1, CAPTURED, ["first seen, 6 columns"]),
        (2, REFUSED, ['"colour" (text) is new']),
        (3, REFUSED, ['"colour" is gone', '"file_name" is character varying(99), was text']),
        (4, CAPTURED, ['"file_name" is text, was character varying(99)']),
    ]
    assert len(structures(platform.lake)) == len(catalogue().source) + 3


@pytest.mark.refreshed
def test_a_column_dropped_and_added_anew_is_compared_though_no_row_was_written(platform: Platform) -> None:
    platform.sql("ALTER TABLE address DROP COLUMN phone, ADD COLUMN phone text NOT NULL DEFAULT '0000'")
    platform.refresh()
    assert platform.query("SELECT DISTINCT phone FROM dim_location") == [("0000",)]


@pytest.mark.refreshed
def test_a_label_renamed_is_seen_though_no_row_was_written(platform: Platform) -> None:
    platform.sql("""ALTER TYPE "PaymentTypeName" RENAME VALUE 'SALES_RECEIPT' TO 'RECEIPT'""")
    platform.refresh()
    refused = CliRunner().invoke(main, ["dead-letters"])
    assert "payment_type 1: payment_type_name is none of" in refused.output.replace("\n", " ")
    platform.sql("""ALTER TYPE "PaymentTypeName" RENAME VALUE 'RECEIPT' TO 'SALES_RECEIPT'""")
    platform.refresh()
    assert "No dead letters." in CliRunner().invoke(main, ["dead-letters"]).output


def test_two_that_see_a_structure_at_once_note_it_once(platform: Platform) -> None:
    def see(_: int) -> None:
        with platform.totesys.snapshot() as snapshot:
            note(platform.lake, snapshot, catalogue().source["design"], CAPTURED)

    with ThreadPoolExecutor(4) as many:
        list(many.map(see, range(4)))
    assert len(structures(platform.lake)) == 1


@pytest.mark.refreshed
def test_a_lost_registry_is_begun_anew_by_the_next_capture(platform: Platform) -> None:
    shutil.rmtree(Path(platform.lake.uri, "schema_registry"))
    platform.sql("UPDATE design SET design_name = 'Plastic'")
    platform.refresh()
    assert [each.table for each in structures(platform.lake)] == ["design"]


def test_before_the_first_refresh_the_command_has_nothing_to_list(platform: Platform) -> None:
    assert "There is no platform in" in CliRunner().invoke(main, ["schema"]).output


@pytest.mark.refreshed
def test_the_command_lists_versions_and_their_changes(platform: Platform) -> None:
    platform.sql("ALTER TABLE design ADD COLUMN colour text NOT NULL DEFAULT 'red'")
    platform.look()
    listed = CliRunner().invoke(main, ["schema", "design"], terminal_width=200)
    assert [word in listed.output for word in ("captured", "refused", '"colour" (text)')] == [True] * 3
    document = json.loads(CliRunner().invoke(main, ["schema", "--json"]).stdout)
    assert [each["version"] for each in document if each["table"] == "design"] == [1, 2]
    unknown = CliRunner().invoke(main, ["schema", "designs"])
    assert (unknown.exit_code, 'No source has a table "designs"' in unknown.output) == (1, True)
