"""SQL of one dialect said in another: by sqlglot, and by one table of what it says otherwise than we need it.

Belongs here: where an engine needs other words, with the reason. Does not belong here: which SQL is said
(transform/engines/, insights/), and running it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sqlglot
from sqlglot import exp

Change = Callable[[exp.Expr], exp.Expr]

# Money and rates, so that a product has the 38 digits that all engines have: money to the penny up to 10 ** 15, a rate
# to the fifteenth decimal below 10 ** 5. What is larger is an error, and no other figure.
MONEY, RATE = "DECIMAL(17, 2)", "DECIMAL(20, 15)"
_OF_RATE = 15
# Decimals of what is divided: of money times a rate, and of the rates that a rate is made of.
_DECIMALS = {False: 17, True: 12}


def said(
    parsed: exp.Expr, dialect: str, more: Mapping[type[exp.Expr], Change] | None = None, *, pretty: bool = False
) -> str:
    """``parsed`` in ``dialect``, by the table below, and by ``more`` of the same kind.

    Raises SqlglotError where there are no such words, as far as sqlglot knows.
    """
    changes = {**TRANSLATIONS[dialect], **(more or {})}
    root = exp.Paren(this=parsed.copy())
    for node in reversed(list(root.walk())):  # what is within comes first: it stays within what takes its place
        if (change := changes.get(type(node))) is not None:
            node.replace(change(node))
    text: str = root.this.sql(dialect, pretty=pretty, comments=False, unsupported_level=sqlglot.ErrorLevel.RAISE)
    return text


def _function(name: str, *arguments: exp.Expr | None) -> exp.Expr:
    return exp.Anonymous(this=name, expressions=[each for each in arguments if each is not None])


def _is_date(node: exp.Expr | None) -> bool:
    return isinstance(node, exp.Cast) and node.is_type("date")


def _is_time_of_day(node: exp.Expr) -> bool:
    """Whether a time of day is added to a day."""
    day, time = node.this, node.args["expression"]
    are_columns = isinstance(day, exp.Column) and isinstance(time, exp.Column)
    return are_columns and day.name.endswith("_date") and time.name.endswith("_time")


def _moment_of(type_: str) -> Change:
    """A day and a time of day as a timestamp without a time zone: the lake has the time as a text."""

    def change(node: exp.Expr) -> exp.Expr:
        if not _is_time_of_day(node):
            return node
        day = exp.DPipe(this=exp.cast(node.this, "text"), expression=exp.Literal.string(" "))
        return exp.cast(exp.DPipe(this=day, expression=node.args["expression"]), type_)

    return change


def _ratio(node: exp.Expr) -> tuple[exp.Expr, exp.Expr, int] | None:
    """Of round(a / b, n): a, b and n, without the decimals that PostgreSQL is to divide with. Else None."""
    quotient, decimals = node.this, node.args.get("decimals")
    if not isinstance(quotient, exp.Div) or decimals is None:
        return None
    above, below = (
        each.this if isinstance(each, exp.Cast) and each.is_type("decimal") else each
        for each in (quotient.left.unnest(), quotient.right.unnest())
    )
    return above, below, int(decimals.name)


def _exact(whole: str) -> Change:
    """A rounded quotient by whole numbers, in a type of 38 digits: exactly, and a half away from zero, as PostgreSQL.

    DuckDB divides decimals as floats; Spark keeps six decimals of a quotient of wide ones, and would round it twice.
    """

    def number(value: exp.Expr, scale: int) -> exp.Expr:
        text = exp.cast(exp.cast(value.copy(), f"DECIMAL(38, {scale})"), "text")
        return exp.cast(_function("REPLACE", text, exp.Literal.string("."), exp.Literal.string("")), whole)

    def change(node: exp.Expr) -> exp.Expr:
        if (found := _ratio(node)) is None:
            return node
        above, below, decimals = found
        of_rate = decimals == _OF_RATE  # a rate is above nothing
        a, b = (number(each, _DECIMALS[of_rate]) for each in (above, below))
        size_a, size_b = (a, b) if of_rate else (exp.Abs(this=a), exp.Abs(this=b))
        twice = exp.paren(size_a * (2 * 10**decimals) + size_b)
        units: exp.Expr = exp.cast(exp.IntDiv(this=twice, expression=exp.func("NULLIF", size_b * 2, 0)), "bigint")
        signs = () if of_rate else (a, b)
        for each in signs:
            units *= exp.cast(exp.Sign(this=each), "int")
        unit = exp.cast(exp.Literal.number(f"{10**-decimals:.{decimals}f}"), f"DECIMAL({decimals}, {decimals})")
        return exp.paren(units * unit)

    return change


def _iso_weekday(weekday: exp.Expr) -> exp.Expr:
    """From Monday as 1 to Sunday as 7. sqlglot gives DAYOFWEEK % 7 + 1, by which a Wednesday would be 5.

    WEEKDAY would be shorter, but Sail gives -1 for a Sunday.
    """
    from_sunday = exp.Anonymous(this="DAYOFWEEK", expressions=[weekday.this])
    return exp.paren(exp.paren(from_sunday + 5) % 7 + 1)


def _moment(function: exp.Expr) -> exp.Expr:
    """Microseconds since 1970 as a moment: as DuckDB's make_timestamptz."""
    if function.name.lower() == "make_timestamptz":
        return exp.Anonymous(this="TIMESTAMP_MICROS", expressions=function.expressions)
    return function


def _in_spark(node: exp.Expr) -> exp.Expr:
    """The days between two days, or the day so many days later: a difference would be an interval."""
    first, second = node.this, node.args["expression"]
    if not _is_date(first) or isinstance(second, exp.Interval):
        return _moment_of("TIMESTAMP_NTZ")(node)
    if _is_date(second):
        return _function("DATEDIFF", first, second)
    return _function("DATE_ADD" if isinstance(node, exp.Add) else "DATE_SUB", first, second)


def _in_athena(node: exp.Expr) -> exp.Expr:
    """The same in Trino, which has no such operators."""
    first, second, day = node.this, node.args["expression"], exp.Literal.string("day")
    if not _is_date(first) or isinstance(second, exp.Interval):
        return _moment_of("TIMESTAMP(6)")(node)
    if _is_date(second):
        return _function("DATE_DIFF", day, second, first)
    return _function("DATE_ADD", day, second if isinstance(node, exp.Add) else exp.Neg(this=second), first)


def _in_utc(node: exp.Expr) -> exp.Expr:
    """What a clock in UTC shows at a moment, whatever the session's time zone is. sqlglot takes it the other way."""
    return _function("TO_UTC_TIMESTAMP", node.this, _function("CURRENT_TIMEZONE"))


def _formatted(function: str, pattern: str) -> Change:
    """A timestamp as a text to the millisecond, by this pattern: sqlglot does not know PostgreSQL's MS."""

    def change(node: exp.Expr) -> exp.Expr:
        is_known = not node.args["format"].name.endswith(".MS")
        return node if is_known else _function(function, node.this, exp.Literal.string(pattern))

    return change


def _days(node: exp.Expr) -> exp.Expr:
    """A series of days, which Spark and Trino make as an array."""
    series = node.this
    if not isinstance(series, exp.ExplodingGenerateSeries):
        return node
    first, last = (exp.cast(series.args[each], "date") for each in ("start", "end"))
    return exp.Unnest(expressions=[_function("SEQUENCE", first, last, series.args["step"])], alias=node.args["alias"])


def _exploded(node: exp.Expr) -> exp.Expr:
    found = _days(node)
    if not isinstance(found, exp.Unnest):
        return node
    name, (column,) = found.args["alias"].this, found.args["alias"].columns
    rows = exp.select(exp.alias_(_function("EXPLODE", found.expressions[0]), column))
    return rows.subquery(name)


def _both_there(node: exp.Expr) -> exp.Expr:
    """Of two values the one that is there, if one is missing: Trino says that such a pair has no least one."""
    first, (second,) = node.this, node.expressions
    pair = exp.func("COALESCE", first, second), exp.func("COALESCE", second, first)
    return type(node)(this=pair[0], expressions=[pair[1]])


# What sqlglot says otherwise than we need it: the dialect, the kind of node, and what takes its place. Each is tried
# against DuckDB, and Sail as Spark; test_questions_elsewhere.py says what is proven of Athena.
TRANSLATIONS: dict[str, dict[type[exp.Expr], Change]] = {
    "duckdb": {
        exp.Add: _moment_of("TIMESTAMP"),
        exp.Round: _exact("HUGEINT"),
        exp.TimeToStr: _formatted("STRFTIME", "%Y-%m-%d %H:%M:%S.%g"),
    },
    "spark": {
        exp.Add: _in_spark,
        exp.Sub: _in_spark,
        exp.AtTimeZone: _in_utc,
        exp.Round: _exact("DECIMAL(38, 0)"),
        exp.Table: _exploded,
        exp.TimeToStr: _formatted("DATE_FORMAT", "yyyy-MM-dd HH:mm:ss.SSS"),
        exp.DayOfWeekIso: _iso_weekday,
        exp.Anonymous: _moment,
    },
    "athena": {
        exp.Add: _in_athena,
        exp.Sub: _in_athena,
        exp.Greatest: _both_there,
        exp.Least: _both_there,
        exp.Table: _days,
        exp.TimeToStr: _formatted("FORMAT_DATETIME", "yyyy-MM-dd HH:mm:ss.SSS"),
    },
}
