"""The warehouse's views and comments: the statements that may be made again and again.

Belongs here: what the views ``current_…`` and ``history_…`` show, and what is said of tables, views and columns. Does
not belong here: tables, when this is applied (schema.py), and the SELECTs of the views for people (views/).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from psycopg import sql

from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.catalogue.views import View, views
from totesys_assets.sql_text import literal
from totesys_assets.warehouse.superseded import current

# left_at: when the row was next recorded on the same day. days_present: on how many days the row is from then on. A
# delete on one day is no version of the row while the row is on another day. place = 1: the record that current_ shows,
# or the last delete of a key that current_ does not show. The table's own columns come last, in the table's order:
# PostgreSQL replaces a view only by one that has more columns at its end.
HISTORY = """
SELECT _recorded_at AS valid_from,
    CASE WHEN place = 1 THEN NULL ELSE least(next_recorded_at, left_at) END AS valid_to,
    place = 1 AS is_current, _operation = 'delete' AS is_deleted, {columns}
FROM (
    SELECT *, lead(_recorded_at) OVER (PARTITION BY {key} ORDER BY _recorded_at, _operation <> 'delete')
        AS next_recorded_at,
        row_number() OVER (PARTITION BY {key} ORDER BY _operation = 'delete' OR left_at IS NOT NULL,
            _recorded_at DESC, {day} DESC) AS place
    FROM (
        SELECT *, sum(step) OVER (PARTITION BY {key} ORDER BY _recorded_at) AS days_present
        FROM (
            SELECT *, lead(_recorded_at) OVER own_day AS left_at,
                (_operation <> 'delete')::int
                    - coalesce((lag(_operation) OVER own_day <> 'delete')::int, 0) AS step
            FROM {table}
            WINDOW own_day AS (PARTITION BY {key}, {day} ORDER BY _recorded_at)
        ) AS records
    ) AS counted
    WHERE _operation <> 'delete' OR days_present = 0
) AS versions
"""
_CURRENT_COMMENT = "{what} as they are now, one row each: the newest version of those that the source has."
_HISTORY_COMMENT = (
    "{what} as they came to be, one row per version, with the time in which it was valid. As they were at a moment: "
    "valid_from <= moment AND (valid_to > moment OR valid_to IS NULL) AND NOT is_deleted. As they are now: is_current "
    "AND NOT is_deleted, or the view current_{subject}. In the stretches that _followed has of the table, every "
    "version that was committed is here, dated by its commit. Outside of them, the states that refreshes saw."
)
VALIDITY = {
    "valid_from": "when this version was first seen, or, in a stretch of _followed, committed; the version is valid "
    "from then on",
    "valid_to": "when the next version, or its end, was first seen; empty for the last version. Ask for "
    "valid_to > moment OR valid_to IS NULL",
    "is_current": "true for the last version of each row: how it is now, or, where is_deleted is true too, that it is "
    "gone. Ask for is_current AND NOT is_deleted to get what the source has now",
    "is_deleted": "true for a version that says that the row is gone from its source; its other columns are as they "
    "were last. Ask for NOT is_deleted to leave such versions out",
}
# The specification lists the table under this name. Its diagrams have the singular.
PLURAL = "fact_purchase_orders"


def stated(schema: str, catalogue: Catalogue, held: dict[str, list[str]]) -> Iterator[sql.Composed]:
    """The statements of all comments and views. They may be run again and again.

    ``held`` has the columns of the tables in the warehouse, in their order.
    """
    for table in catalogue.warehouse.values():
        yield from _comments(schema, "TABLE", table.name, table.description, _described(table))
        if table.is_fact:
            yield from _views(schema, table, held.get(table.name, [*table.by_name]))
    plural = catalogue.star[PLURAL.removesuffix("s")]
    yield sql.SQL("CREATE OR REPLACE VIEW {} AS SELECT * FROM {}").format(
        sql.Identifier(schema, PLURAL), sql.Identifier(schema, plural.name)
    )
    description = f"The table {plural.name} under its other name: the same records, all versions of them."
    yield from _comments(schema, "VIEW", PLURAL, description, _described(plural))


def known(catalogue: Catalogue) -> list[View]:
    """The views for people whose tables the catalogue has."""
    there = {*catalogue.warehouse, *(f"current_{name.removeprefix('fact_')}" for name in catalogue.star)}
    return [view for view in views() if view.reads <= there]


def for_people(schema: str, catalogue: Catalogue) -> Iterator[tuple[str, sql.Composed, list[sql.Composed]]]:
    """Of each view for people: its name, the statement that makes it, and those that comment on it."""
    for view in known(catalogue):
        body = sql.SQL(view.within(schema))  # a file of the package
        create = sql.SQL("CREATE OR REPLACE VIEW {} AS {}").format(sql.Identifier(schema, view.name), body)
        yield view.name, create, list(_comments(schema, "VIEW", view.name, view.description, view.columns))


def _described(table: Table) -> dict[str, str]:
    return {column.name: column.description for column in table.columns}


def _comments(schema: str, kind: str, name: str, text: str, columns: dict[str, str]) -> Iterator[sql.Composed]:
    yield sql.SQL("COMMENT ON {} {} IS {}").format(sql.SQL(kind), sql.Identifier(schema, name), sql.Literal(text))
    # In one statement for all columns: there are hundreds of them.
    yield sql.SQL("; ").join(
        sql.SQL("COMMENT ON COLUMN {} IS {}").format(sql.Identifier(schema, name, column), sql.SQL(literal(comment)))
        for column, comment in columns.items()
    )


def _views(schema: str, table: Table, columns: Sequence[str]) -> Iterator[sql.Composed]:
    subject, what = (
        table.name.removeprefix("fact_"),
        f"{table.name.removeprefix('fact_').replace('_', ' ').capitalize()}s",
    )
    views = (
        ("current", "CREATE OR REPLACE VIEW {view} AS {current}", _CURRENT_COMMENT, _described(table)),
        ("history", "CREATE OR REPLACE VIEW {view} AS" + HISTORY, _HISTORY_COMMENT, {**VALIDITY, **_described(table)}),
    )
    for prefix, template, comment, described in views:
        yield sql.SQL(template).format(
            view=sql.Identifier(schema, f"{prefix}_{subject}"),
            table=sql.Identifier(schema, table.name),
            key=sql.Identifier(table.version_key[0]),
            day=sql.Identifier(str(table.day_column)),
            columns=sql.SQL(", ").join(sql.Identifier(column) for column in columns),
            current=sql.SQL(current(schema, table)),
        )
        text = comment.format(what=what, subject=subject)
        yield from _comments(schema, "VIEW", f"{prefix}_{subject}", text, described)
