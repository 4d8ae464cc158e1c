"""The catalogue: what the source tables, the star tables and the marts are, read from their DDL.

Belongs here: names, types, keys, partitions, descriptions and rules of tables and columns, as the files beside this
module state them: ``warehouse.sql`` the star, ``marts.sql`` the marts, every other file the tables of the source that
it is named after. Does not belong here: how rows are captured, transformed or loaded. No column is listed anywhere
else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib import resources

import pyarrow as pa
import sqlglot
from sqlglot import exp

from totesys_assets.catalogue.consistency import require_defined, require_mart, require_names
from totesys_assets.catalogue.queries import unreadable
from totesys_assets.errors import PlatformError
from totesys_assets.names import MART, STAR, TOTESYS

# A text column whose comment starts so holds a date: rows where it does not are dead letters.
DATE_AS_TEXT = "date as text: "
# A table is partitioned by the day of the column whose comment starts so; the description goes without it.
BY_DAY = "by day: "
# What the lake adds to every source table.
OPERATION = "_operation"
RECORDED_AT = "_recorded_at"
# Where in the log of the source the version was committed; NULL of one that a comparison found.
COMMIT_LSN = "_commit_lsn"
MONTH = "_month"

# sqlglot's name of a type -> (PostgreSQL's format_type(), the lake's Arrow type). The lake keeps a time of day as
# text, HH:MM:SS.mmm, because Delta has no such type.
_TYPES: dict[exp.DType, tuple[str, pa.DataType]] = {
    exp.DType.INT: ("integer", pa.int32()),
    exp.DType.SERIAL: ("integer", pa.int32()),
    exp.DType.BIGINT: ("bigint", pa.int64()),
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
    is_day: bool = False
    references: str | None = None
    labels: tuple[str, ...] = ()
    max_length: int | None = None

    @property
    def is_date_text(self) -> bool:
        """True for a text that holds a date."""
        return self.description.startswith(DATE_AS_TEXT)

    @property
    def is_technical(self) -> bool:
        """True for the columns that the platform adds, named with a leading underscore."""
        return self.name.startswith("_")


@dataclass(frozen=True)
class Table:
    """One table of a source, of the star, or a mart, with its columns in their physical order.

    ``group``: the source's name, ``star`` or ``mart``: the first part of its asset key. ``day_column``: what a
    partitioned table is partitioned by, a date or a moment that should never change. None for a table that is one set.
    """

    name: str
    group: str
    description: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    version_key: tuple[str, ...] = ()
    day_column: str | None = None
    # Name and definition of each index that the warehouse has beside the keys.
    indexes: tuple[tuple[str, str], ...] = ()

    @cached_property
    def asset(self) -> str:
        """Key of its asset: of a source table the capture, of the others what is built in the lake."""
        return f"{self.group}/{self.name}"

    @cached_property
    def file(self) -> str:
        """The file that has its DDL, as sentences name it."""
        return _file(self.group)

    @cached_property
    def source_title(self) -> str:
        """What sentences call the source of a source table."""
        return "ToteSys" if self.group == TOTESYS else f'the source "{self.group}"'

    @cached_property
    def key(self) -> str:
        """Name of the primary key column. Raises ValueError where the key has several columns."""
        (name,) = self.primary_key
        return name

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """Columns by name."""
        return {column.name: column for column in self.columns}

    @cached_property
    def is_fact(self) -> bool:
        """True for a table that keeps every version of what it describes."""
        return bool(self.version_key)

    @cached_property
    def is_mart(self) -> bool:
        """True for a table that is replaced, day by day or as a whole, by what its SELECT makes of the star."""
        return self.group == MART

    @cached_property
    def lake_columns(self) -> tuple[Column, ...]:
        """The columns that the lake holds of it: all but identities, which only the warehouse can give."""
        return tuple(column for column in self.columns if not column.is_identity)


@dataclass(frozen=True, eq=False)
class Catalogue:
    """All tables by name, in the order of their DDL: of the sources, of the star, and the marts."""

    source: dict[str, Table]
    star: dict[str, Table]
    marts: dict[str, Table] = field(default_factory=dict)

    @cached_property
    def warehouse(self) -> dict[str, Table]:
        """The tables that the warehouse holds, in the order of the data flow: the star, then the marts."""
        return self.star | self.marts

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The sources: ToteSys first, then the others by name."""
        return tuple(dict.fromkeys(table.group for table in self.source.values()))


def _file(group: str) -> str:
    return f"catalogue/{ {STAR: 'warehouse', MART: 'marts'}.get(group, group) }.sql"


def ddl(name: str) -> str:
    """Text of a file beside this module, as ``totesys.sql``."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def source_names() -> list[str]:
    """The sources that there is a DDL of: ToteSys first, then the others by name."""
    files = (each.name for each in resources.files(__package__).iterdir() if each.name.endswith(".sql"))
    names = {name.removesuffix(".sql") for name in files} - {"warehouse", "marts"}
    return sorted(names, key=lambda name: (name != TOTESYS, name))


@cache
def catalogue() -> Catalogue:
    """The catalogue, parsed once per process. Raises PlatformError for DDL that the platform cannot use."""
    source = [table for name in source_names() for table in _tables(name, ddl(f"{name}.sql"))]
    star = list(_tables(STAR, ddl("warehouse.sql")))
    marts = list(_tables(MART, ddl("marts.sql")))
    require_names([*source, *star, *marts])
    found = Catalogue(*({table.name: table for table in tables} for tables in (source, star, marts)))
    require_defined(found.marts)
    for mart in marts:
        require_mart(mart)
    return found


def _tables(group: str, sql: str) -> Iterator[Table]:
    enums: dict[str, tuple[str, ...]] = {}
    try:
        statements = sqlglot.parse(sql, read="postgres")
    except sqlglot.errors.SqlglotError as error:
        raise unreadable(_file(group), error) from None
    created = [statement for statement in statements if isinstance(statement, exp.Create)]
    indexes = [statement.this for statement in created if statement.kind == "INDEX"]
    for statement in created:
        if statement.kind == "TYPE":
            labels = statement.expression.expressions
            enums[statement.this.name] = tuple(label.name for label in labels)
        elif statement.kind == "TABLE":
            table = _table(group, statement, enums)
            own = (each for each in indexes if each.args["table"].name == table.name)
            yield replace(table, indexes=tuple((each.name, each.args["params"].sql("postgres")) for each in own))


def _table(group: str, statement: exp.Create, enums: dict[str, tuple[str, ...]]) -> Table:
    definition = statement.this
    columns = [item for item in definition.expressions if isinstance(item, exp.ColumnDef)]
    uniques = [item for item in definition.expressions if isinstance(item, exp.UniqueColumnConstraint)]
    composite = [
        name.name
        for item in definition.expressions
        if isinstance(item, exp.PrimaryKey)
        for name in item.find_all(exp.Identifier)
    ]
    comments = statement.comments or []
    where = f'Table "{definition.this.name}" in {_file(group)}'
    read = tuple(_column(column, enums, composite, where) for column in columns)
    return Table(
        name=definition.this.name,
        group=group,
        description=comments[-1].strip() if comments else "",
        columns=read,
        primary_key=tuple(composite) or tuple(column.name for column in read if column.is_key),
        # A UNIQUE constraint makes a star table a fact. Elsewhere it is a rule that the platform does not enforce.
        version_key=tuple(name.name for unique in uniques for name in unique.this.expressions if group == STAR),
        day_column=next((column.name for column in read if column.is_day), None),
    )


def _column(column: exp.ColumnDef, enums: dict[str, tuple[str, ...]], composite: Collection[str], where: str) -> Column:
    constraints = [constraint.kind for constraint in column.constraints]

    def has(kind: type[exp.Expression]) -> bool:
        return any(isinstance(constraint, kind) for constraint in constraints)

    kind = column.kind
    if kind is None:
        raise PlatformError(f'{where}: column "{column.name}" has no type. Give it one.')
    try:
        spelled, arrow, labels = _type(kind, enums)
    except (KeyError, ValueError):
        known = ", ".join(sorted({name for name, _ in _TYPES.values()}))
        raise PlatformError(
            f'{where}: column "{column.name}" has type {kind.sql("postgres")}, which the catalogue does not know. Use '
            f"one that it knows: {known}, numeric(precision,scale), or an enumeration of the same file."
        ) from None
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
        nullable=not (is_key or column.name in composite or has(exp.NotNullColumnConstraint)),
        description=description.removeprefix(BY_DAY),
        is_key=is_key,
        is_identity=has(exp.GeneratedAsIdentityColumnConstraint),
        is_unique=is_key or has(exp.UniqueColumnConstraint),
        is_day=description.startswith(BY_DAY),
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

    ``versioned`` source tables get what tells a version; partitioned ones ``_month``, their folder.
    """
    fields = [pa.field(column.name, column.arrow, column.nullable) for column in table.lake_columns]
    if versioned:
        fields += [
            pa.field(OPERATION, pa.string(), False),
            pa.field(RECORDED_AT, pa.timestamp("us", tz="UTC"), False),
            pa.field(COMMIT_LSN, pa.int64(), True),
        ]
    if table.day_column:
        fields.append(pa.field(MONTH, pa.string(), False))
    return pa.schema(fields)
