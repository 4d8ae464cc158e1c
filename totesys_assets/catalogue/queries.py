"""What each star table and mart is made of, read out of its SELECT in ``star/`` or ``marts/``.

Belongs here: the text of a SELECT, the tables that it reads, the columns that each of its columns comes from. Does not
belong here: running the SELECT, which is transform/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources

import sqlglot
from sqlglot import exp

from totesys_assets.errors import PlatformError

# The schemas that a star SELECT may read from; see transform/schemas.py for what they hold.
HISTORY, LATEST, REFERENCE = "history", "latest", "reference"
# The tables of the last, with their columns: facts of the world that come with the package.
REFERENCES = {
    "iso_4217": ("currency_code", "currency_name"),
    "country": ("country", "country_code", "map_code", "longitude", "latitude", "is_small"),
}
# The schema of what a SELECT reads of the versions, in place of its sets.
SETS = "sets"
# The schemas that a mart's SELECT may read from: facts as they are now, and star tables with all of their rows.
CURRENT, WHOLE_STAR = "current", "star"
# How the name of every mart begins: the rights of the loader go by it.
MART_PREFIX = "mart_"


@dataclass(frozen=True)
class Query:
    """The SELECT of one star table or mart. ``sources`` are the source tables beneath it, in order of appearance.

    ``is_row_by_row``: it gives one row per version, whatever the other versions are. So new versions can be added.
    A mart reads ``facts`` as they are now, of the wanted days only, and ``tables`` of the star whole.
    """

    name: str
    sql: str
    description: str
    sources: tuple[str, ...]
    is_row_by_row: bool = False
    facts: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """The star tables that a mart reads; nothing for a star table."""
        return tuple(dict.fromkeys((*self.facts, *self.tables)))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that the SELECT gives; ``*`` where it does not name them."""
        parsed = sqlglot.parse_one(self.sql, read="duckdb")
        return tuple(parsed.named_selects) if isinstance(parsed, exp.Query) else ()

    @cached_property
    def sets(self) -> dict[str, str]:
        """The sets of values of versions that the SELECT reads: name -> SELECT. None if it reads them otherwise, too.

        A set is a CTE, and a UNION of ``SELECT <expressions> FROM history.<table>``: a version can only add to it.
        """
        found, parsed = _sets(self.sql)
        return {} if _read_by(parsed, HISTORY, LATEST) else {name: each.sql("duckdb") for name, each in found.items()}

    @cached_property
    def is_row_by_row_at_first(self) -> bool:
        """Whether it gives one row per version where each row has one: the newest are then all."""
        return is_row_by_row(sqlglot.parse_one(self.sql, read="duckdb"), (HISTORY, LATEST))

    @cached_property
    def over_sets(self) -> str:
        """The SELECT with ``sets.<name>`` in place of each of its sets."""
        return _sets(self.sql)[1].sql("duckdb")

    @cached_property
    def definition(self) -> str:
        """The text of the SELECT, and of those that make what it reads: another text may give other rows."""
        return "\n".join([self.sql, *(query_of(name).sql for name in self.reads)])

    @cached_property
    def dated_sources(self) -> frozenset[str]:
        """The source tables of which a mart reads the wanted days: those of its facts."""
        return frozenset(source for name in self.facts for source in query_of(name).sources)

    @cached_property
    def whole_sources(self) -> frozenset[str]:
        """The source tables of which a mart reads all days, whichever are wanted."""
        return frozenset(source for name in self.tables for source in query_of(name).sources)

    def column_lineage(self, columns: Mapping[str, Iterable[str]]) -> dict[str, list[tuple[str, str]]]:
        """Column -> [(table, column)], for the columns that are not generated.

        ``columns`` names the columns of each table that may be read (source tables, or star tables for a mart), so that
        unqualified names find theirs.
        """
        schemas = (CURRENT, WHOLE_STAR) if self.reads else (HISTORY, LATEST)
        return _column_lineage(self.sql, schemas, tuple((name, tuple(listed)) for name, listed in columns.items()))


@cache  # every materialisation records it, and it takes 20 ms for each SELECT
def _column_lineage(
    sql: str, schemas: tuple[str, ...], columns: tuple[tuple[str, tuple[str, ...]], ...]
) -> dict[str, list[tuple[str, str]]]:
    from sqlglot.lineage import lineage  # here: loading the definitions does not need it
    from sqlglot.optimizer import build_scope, qualify

    schema: dict[str, object] = {
        name: {table: dict.fromkeys(listed, "text") for table, listed in columns} for name in schemas
    }
    schema[REFERENCE] = {name: dict.fromkeys(listed, "text") for name, listed in REFERENCES.items()}
    query = qualify.qualify(sqlglot.parse_one(sql, read="duckdb"), dialect="duckdb", schema=schema)
    assert isinstance(query, exp.Query)  # noqa: S101 - each of these files is a SELECT
    scope = build_scope(query)
    result: dict[str, list[tuple[str, str]]] = {}
    for name in query.named_selects:
        # Neither copying nor trimming the query for each of its columns: it is only read, and four times as fast.
        root = lineage(name, query, dialect="duckdb", schema=schema, scope=scope, trim_selects=False, copy=False)
        found = {
            (leaf.source.name, leaf.name.split(".")[-1].strip('"'))
            for leaf in root.walk()
            if isinstance(leaf.source, exp.Table) and leaf.source.db in schemas
        }
        if found:
            result[name] = sorted(found)
    return result


@cache
def query_of(name: str) -> Query:
    """The SELECT of a star table or mart. Raises PlatformError when there is no such file, and as ``parse``."""
    folder = "marts" if name.startswith(MART_PREFIX) else "star"
    try:
        sql = resources.files("totesys_assets").joinpath(folder, f"{name}.sql").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PlatformError(
            f'There is no {folder}/{name}.sql, the SELECT that makes "{name}". Write it, or name another table.'
        ) from None
    return parse(name, sql)


def mart_files() -> list[str]:
    """Names of the marts of which there is a SELECT."""
    folder = resources.files("totesys_assets").joinpath("marts")
    names = [each.name for each in folder.iterdir()] if folder.is_dir() else []
    return sorted(name.removesuffix(".sql") for name in names if name.endswith(".sql"))


def parse(name: str, sql: str) -> Query:
    """The query that ``sql`` is. Raises PlatformError if it is no SQL, or reads a table that it may not read."""
    try:
        parsed = sqlglot.parse_one(sql, read="duckdb")
    except sqlglot.errors.SqlglotError as error:
        raise unreadable(f"{'marts' if name.startswith(MART_PREFIX) else 'star'}/{name}.sql", error) from None
    first_line = sql.partition("\n")[0].removeprefix("--").strip()
    if not name.startswith(MART_PREFIX):
        return Query(name, sql, first_line, _read_by(parsed, HISTORY, LATEST), is_row_by_row(parsed))
    facts, tables = _read_by(parsed, CURRENT), _read_by(parsed, WHOLE_STAR)
    _require_readable(name, parsed, facts, tables)
    try:
        sources = tuple(dict.fromkeys(source for each in (*facts, *tables) for source in query_of(each).sources))
    except PlatformError as error:
        raise PlatformError(f"marts/{name}.sql reads a table that the star does not have. {error}") from None
    return Query(name, sql, first_line, sources, facts=facts, tables=tables)


def unreadable(file: str, error: sqlglot.errors.SqlglotError) -> PlatformError:
    """The error for a file whose SQL cannot be parsed: where, and what was found there."""
    found = error.errors[0] if isinstance(error, sqlglot.errors.ParseError) and error.errors else {}
    where = f", in line {found['line']}, near {found.get('highlight')!r}" if found.get("line") else ""
    what = str(found.get("description") or " ".join(str(error).split())[:300])
    return PlatformError(f"{file} cannot be read{where}: {what.rstrip('.')}. Correct its SQL.")


def _read_by(parsed: exp.Expr, *schemas: str) -> tuple[str, ...]:
    tables = parsed.find_all(exp.Table, bfs=False)
    return tuple(dict.fromkeys(table.name for table in tables if table.db in schemas))


def _require_readable(name: str, parsed: exp.Expr, facts: tuple[str, ...], tables: tuple[str, ...]) -> None:
    odd = {table.sql("duckdb") for table in parsed.find_all(exp.Table) if table.db not in ("", CURRENT, WHOLE_STAR)}
    if odd or not facts + tables:
        raise PlatformError(
            f"marts/{name}.sql reads {', '.join(sorted(odd)) or 'no table of the star'}. A mart reads "
            f"{CURRENT}.<fact>, the rows of a fact as they are now, and {WHOLE_STAR}.<table>, a table of the star."
        )
    for table in (*facts, *tables):
        if table.startswith(MART_PREFIX):
            raise PlatformError(
                f"marts/{name}.sql reads {table}. A mart reads tables of the star, not other marts: read what that is "
                "made of."
            )
    for table in facts:
        if not table.startswith("fact_"):
            raise PlatformError(
                f"marts/{name}.sql reads {CURRENT}.{table}. That is no fact: read {WHOLE_STAR}.{table}."
            )


def is_row_by_row(query: exp.Expr, schemas: Iterable[str] = (HISTORY,)) -> bool:
    """True for ``SELECT <expressions> FROM history.<table>``. Any other form counts as not row by row."""
    clauses = {name for name, value in query.args.items() if value}
    source = query.args.get("from_")
    return (
        isinstance(query, exp.Select)
        and clauses == {"expressions", "from_"}
        and isinstance(source, exp.From)
        and isinstance(source.this, exp.Table)
        and source.this.db in schemas
        and query.find(exp.AggFunc, exp.Window, exp.Subquery, exp.Unnest) is None
    )


def _sets(sql: str) -> tuple[dict[str, exp.Expr], exp.Expr]:
    """The CTEs that are sets of values of versions, and the query that reads ``sets.<name>`` in place of each."""
    query = sqlglot.parse_one(sql, read="duckdb")
    found = {}
    for each in query.ctes if isinstance(query, exp.Query) else ():
        if not each.alias_column_names and _is_set(each.this):
            found[each.alias] = each.this
            each.set("this", exp.select("*").from_(exp.table_(each.alias, db=SETS)))
    return found, query


def _is_set(query: exp.Expr) -> bool:
    """True for a UNION, without ALL, of queries that are row by row."""
    if not isinstance(query, exp.Union) or not query.args.get("distinct"):
        return False
    clauses = {name for each in query.find_all(exp.Union) for name, value in each.args.items() if value}
    return clauses == {"this", "expression", "distinct"} and all(map(is_row_by_row, _branches(query)))


def together(query: Query) -> list[str]:
    """The facts that a mart reads together, if there are several: all but those in branches of a UNION of their own.

    The rows of facts that are read together, or of one that is read twice, may be of different days. A mart that is
    made day by day would miss them.
    """
    parsed = sqlglot.parse_one(query.sql, read="duckdb")
    named = {each.alias: each.this for each in parsed.find_all(exp.CTE)}
    return next((facts for branch in _branches(parsed) if len(facts := _facts(branch, named)) > 1), [])


def _facts(part: exp.Expr, named: Mapping[str, exp.Expr]) -> list[str]:
    """The facts that a part of a SELECT reads, also through what it has ``named``, each as often as it is read."""
    facts = []
    for node in part.walk(prune=lambda each: isinstance(each, exp.With)):
        if isinstance(node, exp.Table) and node.db == CURRENT:
            facts.append(node.name)
        elif isinstance(node, exp.Table) and not node.db and node.name in named:
            facts += _facts(named[node.name], named)
    return facts


def across_days(query: Query, column: str) -> str | None:
    """What in a mart's SELECT needs several days at once: a window not partitioned by day ``column``, or a LIMIT."""
    parsed = sqlglot.parse_one(query.sql, read="duckdb")
    for window in parsed.find_all(exp.Window):
        if column not in (each.name for each in window.args.get("partition_by") or []):
            return f"has a window that is not partitioned by {column}"
    return "has a LIMIT" if parsed.find(exp.Limit, exp.Offset) else None


def is_plain(query: Query, column: str) -> bool:
    """True if ``column`` is given by name and as it is read, in every branch of a UNION, and not computed."""
    branches = _branches(sqlglot.parse_one(query.sql, read="duckdb"))
    names = branches[0].named_selects  # those of a UNION
    if column not in names:
        return False
    given = [branch.selects[names.index(column)].unalias() for branch in branches]
    return all(isinstance(each, exp.Column) for each in given)


def _branches(parsed: exp.Expr) -> list[exp.Query]:
    if isinstance(parsed, exp.SetOperation):
        return [*_branches(parsed.this), *_branches(parsed.expression)]
    assert isinstance(parsed, exp.Query)  # noqa: S101 - each of these files is a SELECT
    return [parsed]
