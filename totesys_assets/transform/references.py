"""The schema ``reference``: facts of the world that come with the package, for the SELECTs of the star."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import resources

import duckdb
import pyarrow as pa
import pyarrow.csv as csv

from totesys_assets.catalogue.queries import REFERENCE, REFERENCES


def references(sql: str) -> dict[tuple[str, str], pa.Table]:
    """The tables of ``reference`` that ``sql`` names, by schema and name."""
    return {(REFERENCE, name): make() for name, make in _MADE.items() if f"{REFERENCE}.{name}" in sql}


def create_references(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Create the tables of ``reference`` that ``sql`` names."""
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {REFERENCE}")
    for (schema, name), rows in references(sql).items():
        connection.register(f"{schema}_{name}", rows)
        connection.execute(f"CREATE OR REPLACE VIEW {schema}.{name} AS SELECT * FROM {schema}_{name}")


def _iso_4217() -> pa.Table:
    """Names of currencies."""
    import iso4217  # here: only dim_currency needs it

    return pa.table(
        {
            "currency_code": [currency.code for currency in iso4217.Currency],
            "currency_name": [currency.currency_name for currency in iso4217.Currency],
        }
    )


def _country() -> pa.Table:
    """Countries by the names that ToteSys gives them: codes of ISO 3166-1, and a point in each."""
    types = {"longitude": pa.decimal128(6, 2), "latitude": pa.decimal128(5, 2), "is_small": pa.bool_()}
    text = dict.fromkeys(REFERENCES["country"], pa.string())
    with resources.files("totesys_assets.catalogue").joinpath("country.csv").open("rb") as file:
        return csv.read_csv(file, convert_options=csv.ConvertOptions(column_types={**text, **types}))


_MADE: dict[str, Callable[[], pa.Table]] = {"iso_4217": cache(_iso_4217), "country": cache(_country)}
