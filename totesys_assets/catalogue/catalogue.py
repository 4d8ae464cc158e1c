"""The catalogue: what the eleven source tables and the eleven star tables are, read from their DDL.

Belongs here: names, types, keys, descriptions and rules of tables and columns, as ``totesys.sql`` and ``warehouse.sql``
state them. Does not belong here: how rows are captured, transformed or loaded. No column is listed anywhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib import resources

import pyarrow as pa
import sqlglot
from sqlglot import exp

from totesys_assets.catalogue.star import star_query

# A text column whose comment starts so holds a date: rows where it does not are dead letters.
DATE_AS_TEXT = "date as text: "
# The column that every day partition of the source is made of; it never changes.
CREATED_AT = "created_at"
# What the lake adds to every source table.
OPERATION = "_operation"
RECORDED_AT = "_recorded_at"
MONTH = "_month"
DAY_COLUMNS = ("created_date", "_created_date")

# sqlglot's name of a type -> (PostgreSQL's format_type(), the lake's Arrow type). The lake keeps a time of day as
# text, HH:MM:SS.mmm, because Delta has no such type.
_TYPES: dict[exp.DType, tuple[str, pa.DataType]] = {
    exp.DType.INT: ("integer", pa.int32()),
    exp.DType.SERIAL: ("integer", pa.int32()),
    exp.DType.TEXT: ("text", pa.string()),
    exp.DType.VARCHAR: ("character varying", pa.string()),
    exp.DType.BOOLEAN: ("boolean", pa.bool_()),
    exp.DType.DATE: ("date", pa.date32()),
    exp.DType.TIME: ("time without time zone", pa.string()),
    exp.DType.TIMESTAMP: ("timestamp without time zone", pa.timestamp("us")),
    exp.DType.TIMESTAMPTZ: ("timestamp with time zone", pa.timestamp("us", tz="UTC")),
}


@dataclass(frozen=True)
class Column:
    """One column: its PostgreSQL type as ``format_type`` spells it, the lake's Arrow type, and its rules."""

    name: str
    type: str
    arrow: pa.DataType
    nullable: bool
    description: str
    is_key: bool = False
    is_identity: bool = False
    is_unique: bool = False
    is_date_text: bool = False
    references: str | None = None
    labels: tuple[str, ...] = ()
    max_length: int | None = None

    @property
    def is_technical(self) -> bool:
        """True for the columns that the platform adds, named with a leading underscore."""
        return self.name.startswith("_")


@dataclass(frozen=True)
class Table:
    """One table of the source or of the star, with its columns in their physical order.

    ``day_column`` is what a partitioned table is partitioned by: ``created_at`` in the source, where it never
    changes, and the date made of it in the star. It is None for the small tables, which are one set each.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    version_key: tuple[str, ...] = ()
    day_column: str | None = None

    @cached_property
    def key(self) -> str:
        """Name of the primary key column."""
        return next(column.name for column in self.columns if column.is_key)

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """Columns by name."""
        return {column.name: column for column in self.columns}

    @cached_property
    def is_fact(self) -> bool:
        """True for a table that keeps every version of what it describes."""
        return bool(self.version_key)

    @cached_property
    def lake_columns(self) -> tuple[Column, ...]:
        """The columns that the lake holds of it: all but identities, which only the warehouse can give."""
        return tuple(column for column in self.columns if not column.is_identity)


@dataclass(frozen=True)
class Catalogue:
    """All tables: ``source`` and ``star``, by name, in the order of their DDL."""

    source: dict[str, Table]
    star: dict[str, Table]


def ddl(name: str) -> str:
    """Text of ``totesys.sql`` or ``warehouse.sql``."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def catalogue() -> Catalogue:
    """The catalogue, parsed once per process."""
    star = {table.name: _partitioned_star(table) for table in _tables(ddl("warehouse.sql"))}
    # A source table that a partitioned star table is made of grows by the day too.
    growing = {source for table in star.values() if table.day_column for source in star_query(table.name).sources}
    source = {
        table.name: replace(table, day_column=CREATED_AT) if table.name in growing else table
        for table in _tables(ddl("totesys.sql"))
    }
    return Catalogue(source, star)


def _partitioned_star(table: Table) -> Table:
    return replace(table, day_column=next((name for name in DAY_COLUMNS if name in table.by_name), None))


def _tables(sql: str) -> Iterator[Table]:
    enums: dict[str, tuple[str, ...]] = {}
    for statement in sqlglot.parse(sql, read="postgres"):
        if not isinstance(statement, exp.Create):
            continue
        if statement.kind == "TYPE":
            labels = statement.expression.expressions
            enums[statement.this.name] = tuple(label.name for label in labels)
        elif statement.kind == "TABLE":
            yield _table(statement, enums)


def _table(statement: exp.Create, enums: dict[str, tuple[str, ...]]) -> Table:
    definition = statement.this
    columns = [item for item in definition.expressions if isinstance(item, exp.ColumnDef)]
    uniques = [item for item in definition.expressions if isinstance(item, exp.UniqueColumnConstraint)]
    comments = statement.comments or []
    return Table(
        name=definition.this.name,
        description=comments[-1].strip() if comments else "",
        columns=tuple(_column(column, enums) for column in columns),
        version_key=tuple(name.name for unique in uniques for name in unique.this.expressions),
    )


def _column(column: exp.ColumnDef, enums: dict[str, tuple[str, ...]]) -> Column:
    constraints = [constraint.kind for constraint in column.constraints]

    def has(kind: type[exp.Expression]) -> bool:
        return any(isinstance(constraint, kind) for constraint in constraints)

    kind = column.kind
    assert kind is not None  # noqa: S101 - every column of ours has a type
    spelled, arrow, labels = _type(kind, enums)
    is_key = has(exp.PrimaryKeyColumnConstraint)
    # sqlglot hangs the comment of a table's last column on that column's last constraint.
    comments = [comment for node in column.walk() for comment in node.comments or []]
    description = " ".join(comment.strip() for comment in comments)
    references = next((item.this.find(exp.Table) for item in constraints if isinstance(item, exp.Reference)), None)
    sizes = [int(size.name) for size in kind.expressions]
    return Column(
        name=column.name,
        type=spelled,
        arrow=arrow,
        nullable=not (is_key or has(exp.NotNullColumnConstraint)),
        description=description,
        is_key=is_key,
        is_identity=has(exp.GeneratedAsIdentityColumnConstraint),
        is_unique=is_key or has(exp.UniqueColumnConstraint),
        is_date_text=description.startswith(DATE_AS_TEXT),
        references=references.name if references is not None else None,
        labels=labels,
        max_length=sizes[0] if kind.this == exp.DType.VARCHAR and sizes else None,
    )


def _type(kind: exp.DataType, enums: dict[str, tuple[str, ...]]) -> tuple[str, pa.DataType, tuple[str, ...]]:
    sizes = [int(size.name) for size in kind.expressions]
    if kind.this == exp.DType.USERDEFINED:
        name = str(kind.args["kind"]).strip('"')
        return f'"{name}"', pa.string(), enums[name]
    if kind.this == exp.DType.DECIMAL:
        precision, scale = sizes
        return f"numeric({precision},{scale})", pa.decimal128(precision, scale), ()
    spelled, arrow = _TYPES[kind.this]
    if sizes:
        first, _, rest = spelled.partition(" with")  # timestamp(3) without time zone, but character varying(3)
        spelled = f"{first}({sizes[0]})" + (f" with{rest}" if rest else "")
    return spelled, arrow, ()


def lake_schema(table: Table, *, versioned: bool) -> pa.Schema:
    """Arrow schema of a table in the lake.

    ``versioned`` source tables get ``_operation`` and ``_recorded_at``; partitioned ones ``_month``, their folder.
    """
    fields = [pa.field(column.name, column.arrow, column.nullable) for column in table.lake_columns]
    if versioned:
        fields += [pa.field(OPERATION, pa.string(), False), pa.field(RECORDED_AT, pa.timestamp("us", tz="UTC"), False)]
    if table.day_column:
        fields.append(pa.field(MONTH, pa.string(), False))
    return pa.schema(fields)
