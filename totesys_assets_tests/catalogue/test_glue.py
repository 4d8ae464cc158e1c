"""The star tables as Athena sees them: as the catalogue, and as the lake really holds them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.catalogue.glue import athena_type, glue_table, glue_tables
from totesys_assets.lake.tables import Lake

pytestmark = pytest.mark.pure

FILE = Path(__file__).parents[2] / "deploy" / "terraform" / "glue_tables.json"
STAR = catalogue().warehouse

# Delta's names of types, as its log spells them, where they are not Athena's.
ATHENA = {"integer": "int", "long": "bigint"}


def test_the_file_that_terraform_reads_is_what_the_catalogue_says() -> None:
    assert FILE.read_text(encoding="utf-8") == glue_tables(), (
        "Run: python -m totesys_assets.catalogue.glue > deploy/terraform/glue_tables.json"
    )


def test_all_star_tables_and_marts_are_in_it_and_no_others() -> None:
    assert list(json.loads(glue_tables())) == list(STAR)


@pytest.mark.parametrize("name", STAR)
def test_athena_is_told_the_columns_that_the_lake_holds(name: str, tmp_path: Path) -> None:
    """Of a table as the platform makes it, read from its own log."""
    delta = Lake(str(tmp_path)).open_processed(STAR[name])
    fields = json.loads(delta.schema().to_json())["fields"]
    held = [(field["name"], ATHENA.get(field["type"], field["type"])) for field in fields]
    columns = json.loads(glue_tables())[name]["columns"]
    assert [(column["name"], column["type"]) for column in columns] == held


def test_every_column_has_a_comment_that_glue_can_hold() -> None:
    comments = [column["comment"] for table in json.loads(glue_tables()).values() for column in table["columns"]]
    assert all(0 < len(comment.encode()) <= 255 for comment in comments)


def test_identities_are_left_out_for_only_the_warehouse_gives_them() -> None:
    columns = glue_table(STAR["fact_sales_order"])["columns"]
    assert isinstance(columns, list)
    assert "sales_record_id" not in {column["name"] for column in columns}


def test_a_type_that_no_star_table_has_is_an_error() -> None:
    with pytest.raises(KeyError):
        athena_type(pa.float64())
