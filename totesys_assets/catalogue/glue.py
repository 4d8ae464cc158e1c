"""Star tables and marts as AWS Glue describes tables, for Terraform: ``deploy/terraform/glue_tables.json``.

Belongs here: names, types and descriptions as Athena spells them. Does not belong here: where the tables lie, and how
Athena is told that they are Delta tables; that is ``deploy/terraform/catalogue.tf``. Written anew by

    python -m totesys_assets.catalogue.glue > deploy/terraform/glue_tables.json
"""

from __future__ import annotations

import json
import sys

import pyarrow as pa

from totesys_assets.catalogue.catalogue import MONTH, Table, catalogue, lake_schema

# The lake's Arrow type -> Athena's. Delta's timestamps are in UTC; Athena's type does not say in which zone.
_TYPES: dict[pa.DataType, str] = {
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.string(): "string",
    pa.bool_(): "boolean",
    pa.date32(): "date",
    pa.timestamp("us", tz="UTC"): "timestamp",
}
_MONTH_COMMENT = "month of the day column, which the files are in folders by"


def athena_type(arrow: pa.DataType) -> str:
    """Athena's name of a type in the lake. Raises KeyError for one that no table has."""
    if pa.types.is_decimal(arrow):
        return f"decimal({arrow.precision},{arrow.scale})"
    return _TYPES[arrow]


def glue_table(table: Table) -> dict[str, object]:
    """Description and columns of a star table or mart, in the order in which the lake holds them."""
    return {
        "description": table.description,
        "columns": [
            {
                "name": field.name,
                "type": athena_type(field.type),
                "comment": _MONTH_COMMENT if field.name == MONTH else table.by_name[field.name].description,
            }
            for field in lake_schema(table, versioned=False)
        ],
    }


def glue_tables() -> str:
    """All star tables and marts, by name, as the text of a JSON file."""
    tables = {name: glue_table(table) for name, table in catalogue().warehouse.items()}
    return json.dumps(tables, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(glue_tables())
