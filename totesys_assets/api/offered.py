"""What the API offers: views, marts and dimensions, with their columns and the key that their rows are ordered by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from totesys_assets.catalogue.catalogue import Table, catalogue
from totesys_assets.catalogue.views import views
from totesys_assets.warehouse.views import VALIDITY


@dataclass(frozen=True)
class Offered:
    """A table or view. ``columns``: name -> description. ``key``: what is unique, and the order of its rows.

    ``day``: the column that ``first`` and ``last`` are about. ``indexed``: of a view, the table whose index knows the
    values of the key's first column. PostgreSQL would sort a whole view for one page of it, but not for a range.
    """

    name: str
    description: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    day: str | None = None
    indexed: str | None = None


# Of each view for people: its key, its day, and the table that knows the values of the key.
_VIEWS = {
    "conversion_rate": (("day", "basis", "from_currency", "to_currency"), "day", "mart_exchange_rate"),
    "purchase": (("purchase_order_id",), "created_date", "fact_purchase_order"),
    "receivable": (("payment_id",), "created_date", "fact_payment"),
    "sale": (("sales_order_id",), "created_date", "fact_sales_order"),
}


@cache
def offered() -> Mapping[str, Offered]:
    """All of them by name: the views for people first, then current and history of each fact, marts, dimensions."""
    found = [Offered(view.name, view.description, view.columns, *_VIEWS[view.name]) for view in views()]
    tables = catalogue().warehouse.values()
    for table in tables:
        if table.is_fact:
            found += _of_fact(table)
    for table in sorted(tables, key=lambda table: not table.is_mart):
        if not table.is_fact:
            described = {column.name: column.description for column in table.columns}
            found.append(Offered(table.name, table.description, described, table.primary_key, _day(table)))
    return {each.name: each for each in found}


def _of_fact(table: Table) -> Iterator[Offered]:
    subject = table.name.removeprefix("fact_")
    what = subject.replace("_", " ")
    described = {column.name: column.description for column in table.columns}
    key, day = table.version_key[0], str(table.day_column)
    now, ever = f"Every {what} as it is now.", f"Every version of every {what}, and when it was valid."
    yield Offered(f"current_{subject}", now, described, (key,), day, table.name)
    yield Offered(f"history_{subject}", ever, {**VALIDITY, **described}, (key, day, "valid_from"), day, table.name)


def _day(table: Table) -> str | None:
    """The day of a mart. A dimension has none, nor has what is partitioned by a moment."""
    if table.day_column:
        return table.day_column if table.by_name[table.day_column].type == "date" else None
    return next((each for each in table.primary_key if table.is_mart and table.by_name[each].type == "date"), None)
