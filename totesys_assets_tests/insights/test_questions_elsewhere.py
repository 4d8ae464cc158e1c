"""The questions over the lake give the warehouse's answers: in DuckDB, in Spark, and what can be proven of Athena.

The yardstick is the answer of PostgreSQL. Every question is asked in several ways, over a trade with odd names and
changes, and compared row by row to the last digit. Sail stands for Spark. Nothing here runs Athena: its SQL is read by
sqlglot as Trino's, said in DuckDB's words and run, and it has only what Trino's documentation knows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
import sqlglot
from click.testing import CliRunner
from sqlglot import exp

from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.commands import main
from totesys_assets.dialects import said
from totesys_assets.errors import PlatformError
from totesys_assets.insights.over_the_lake import place, statement
from totesys_assets.insights.questions import PARAMETERS, answer, defaults, questions
from totesys_assets.lake.read import register
from totesys_assets.lake.tables import PROCESSED
from totesys_assets.transform.engines.spark_session import connected
from totesys_assets_tests.conftest import Platform, PostgresServer, Refreshed, begin
from totesys_assets_tests.harness.sail import Sail, needs_sail
from totesys_assets_tests.insights import story

# What the warehouse notes of itself.
NOT_OF_THE_LAKE = {"dead_letters", "freshness", "how_exact", "last_audit"}
OF_THE_LAKE = [name for name in questions() if name not in NOT_OF_THE_LAKE]
# Every option at least once, beside the defaults of a day in each case.
WAYS: tuple[dict[str, Any], ...] = (
    {"last": date(2025, 8, 5), "first": date(2023, 12, 1), "today": date(2025, 1, 15), "number": 411},
    {"last": date(2024, 10, 15), "period": "week", "currency": "USD", "number": 104, "rows": 3},
    {"last": date(2025, 8, 31), "period": "quarter", "currency": "EUR", "basis": "month", "subject": "purchase_order"},
    {"last": date(2025, 8, 31), "period": "year", "currency": "JPY", "rate_day": date(2024, 8, 25), "number": 406},
    {"last": date(2024, 9, 5), "first": date(2024, 8, 28), "period": "day", "basis": "month", "number": 1},
)
Rows = list[tuple[Any, ...]]
Run = Callable[[str], tuple[tuple[str, ...], Rows]]


@pytest.fixture(scope="module")
def told(postgres_server: PostgresServer, trade_template: str, scratch: Path) -> Refreshed:
    """A platform after the story."""
    return begin(postgres_server, trade_template, scratch / "elsewhere", story.happen)


@pytest.fixture(scope="module")
def platform(told: Refreshed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A copy of it that nobody changes."""
    with told.copy(tmp_path_factory.mktemp("elsewhere")) as made:
        yield made


@pytest.fixture(scope="module")
def ways(platform: Platform) -> list[dict[str, Any]]:
    """All parameters of each way: the moments of the story are those of the refreshes."""
    recorded = [moment for (moment,) in platform.query("SELECT DISTINCT _recorded_at FROM fact_sales_order ORDER BY 1")]
    made = []
    for number, way in enumerate(WAYS):
        made.append({**defaults(date(2024, 9, 20)), "moment": recorded[number % len(recorded)], **way})
    return made


def values_of(name: str, way: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a question: what changed was seen today."""
    return {**way, "first": date(2024, 1, 1), "last": datetime.now(UTC).date()} if name == "what_changed" else way


def plain(rows: Rows) -> Rows:
    """The rows with moments in UTC."""
    return [
        tuple(each.astimezone(UTC) if isinstance(each, datetime) and each.tzinfo else each for each in row)
        for row in rows
    ]


def in_duckdb(platform: Platform) -> tuple[duckdb.DuckDBPyConnection, Run]:
    """A DuckDB in which the tables of the lake are called as it would call them there, and what runs a statement."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for name in catalogue().warehouse:
        table = platform.lake.find(PROCESSED, name)
        assert table is not None
        held = register(connection, f"held_{name}", table)
        connection.execute(f"CREATE TABLE lake_{name} AS FROM {held}")  # else each question would open the files

    def run(text: str) -> tuple[tuple[str, ...], Rows]:
        connection.execute(text)
        return tuple(each[0] for each in connection.description or ()), plain(connection.fetchall())

    return connection, run


@contextmanager
def in_sail() -> Iterator[Run]:
    server = Sail()
    try:
        with connected(server.remote, "The test") as session:

            def run(text: str) -> tuple[tuple[str, ...], Rows]:
                table = session.sql(text).toArrow()
                rows = zip(*(each.to_pylist() for each in table.columns), strict=True)
                return tuple(table.column_names), plain([*rows])

            yield run
    finally:
        server.kill()


def compare(platform: Platform, ways: list[dict[str, Any]], ask: Callable[[str, dict[str, Any]], Any]) -> None:
    """Require of ``ask`` the columns and the rows of the warehouse, to all questions in all ways, in the same order."""
    wrong, counts = [], dict.fromkeys(OF_THE_LAKE, 0)
    with psycopg.connect(platform.warehouse_url, options="-c search_path=public -c timezone=UTC") as connection:
        for name in OF_THE_LAKE:
            for way in ways:
                values = values_of(name, way)
                expected = answer(connection, name, **values)
                columns, rows = ask(name, values)
                counts[name] += len(rows)
                if (columns, rows) != (expected.columns, plain(expected.rows)):
                    pairs = zip(plain(expected.rows), rows, strict=False)
                    wrong.append((name, values, [pair for pair in pairs if pair[0] != pair[1]][:2]))
    assert not wrong, wrong
    assert min(counts.values()) > 0, counts


def test_every_option_of_every_question_is_asked_in_several_ways(ways: list[dict[str, Any]]) -> None:
    for parameter in PARAMETERS:
        assert len({str(way[parameter]) for way in ways}) > 1, parameter


def test_duckdb_over_the_lake_gives_the_answers_of_the_warehouse(
    platform: Platform, ways: list[dict[str, Any]]
) -> None:
    connection, run = in_duckdb(platform)
    with connection:
        compare(platform, ways, lambda name, way: run(statement(questions()[name], way, "duckdb", "lake_{}".format)))


@needs_sail
def test_spark_over_the_lake_gives_the_answers_of_the_warehouse(platform: Platform, ways: list[dict[str, Any]]) -> None:
    where = place("spark", platform.settings.lake_uri, "")
    with in_sail() as run:
        compare(platform, ways, lambda name, way: run(statement(questions()[name], way, "spark", where)))


def test_the_sql_for_athena_says_the_same_as_sqlglot_reads_it(platform: Platform, ways: list[dict[str, Any]]) -> None:
    connection, run = in_duckdb(platform)
    connection.execute("CREATE MACRO at_timezone(moment, zone) AS timezone(zone, moment)")
    connection.execute("CREATE MACRO format_datetime(moment, pattern) AS strftime(moment, '%Y-%m-%d %H:%M:%S.%g')")

    def ask(name: str, way: dict[str, Any]) -> tuple[tuple[str, ...], Rows]:
        text = statement(questions()[name], way, "athena", "lake_{}".format)
        return run(said(sqlglot.parse_one(text, read="athena"), "duckdb"))

    with connection:
        compare(platform, ways[1:4], ask)


# What the SQL for Athena calls, each with the page of Trino's documentation that describes it, in
# https://trino.io/docs/current/functions/. Athena's engine version 3 has Trino's functions:
# https://docs.aws.amazon.com/athena/latest/ug/functions-env3.html. The newest of these is listagg, of Trino 366.
TRINO = {
    "abs": "math",
    "at_timezone": "datetime",
    "bool_or": "aggregate",
    "coalesce": "conditional",
    "concat": "string",
    "concat_ws": "string",
    "count": "aggregate",
    "date_add": "datetime",
    "date_diff": "datetime",
    "date_trunc": "datetime",
    "format_datetime": "datetime",
    "greatest": "comparison",
    "lag": "window",
    "lead": "window",
    "least": "comparison",
    "listagg": "aggregate",
    "max": "aggregate",
    "min": "aggregate",
    "nullif": "conditional",
    "round": "math",
    "row_number": "window",
    "sequence": "array",
    "sum": "aggregate",
}
# Words that are no functions though a bracket may follow.
WORDS = {
    "as", "and", "or", "not", "in", "on", "by", "over", "filter", "group", "values", "from", "when", "then", "else",
    "unnest", "cast", "decimal", "timestamp", "exists", "with", "union", "all", "where", "select", "using", "join",
    "case",
}  # fmt: skip
# Constructs of other engines that Trino refuses, or takes otherwise.
REFUSED = (exp.Qualify, exp.Distinct, exp.Lateral, exp.Fetch, exp.IntDiv, exp.Bracket, exp.Struct, exp.Array, exp.Star)


@pytest.mark.pure
@pytest.mark.parametrize("name", OF_THE_LAKE)
def test_the_sql_for_athena_has_only_what_trino_has(name: str) -> None:
    for way in WAYS[:2]:
        values = {**defaults(date(2024, 9, 20)), **way}
        text = statement(questions()[name], values, "athena", place("athena", "", "totesys"))
        require_trino(text)


def require_trino(text: str) -> None:
    """Raises AssertionError for what Trino does not have, or has otherwise."""
    tokens = sqlglot.tokenize(text, read="athena")
    called = {
        token.text.lower()
        for token, after in pairwise(tokens)
        if after.text == "(" and token.token_type is not sqlglot.TokenType.STRING and token.text[:1].isalpha()
    }
    parsed = sqlglot.parse_one(text, read="athena")
    named = {each.alias_or_name for each in parsed.find_all(exp.CTE, exp.TableAlias)}
    assert called - WORDS - named <= TRINO.keys()
    assert "::" not in text
    assert "MATERIALIZED" not in text
    for node in parsed.walk():
        if isinstance(node, exp.Distinct):
            assert node.args.get("on") is None
        elif isinstance(node, exp.Star):
            assert not isinstance(node.parent, exp.Select) or len(node.parent.expressions) <= 5
        else:
            assert not isinstance(node, REFUSED), node.sql("athena")
        if isinstance(node, exp.Add | exp.Sub) and not isinstance(node.expression, exp.Interval):
            # A day is no number, and their difference none.
            operands = (node.this, node.expression)
            assert not any(isinstance(each, exp.Cast) and each.is_type("date") for each in operands), node.sql("athena")
        if isinstance(node, exp.Interval):
            assert isinstance(node.this, exp.Literal)
            assert node.this.is_string
        if isinstance(node, exp.DataType) and node.is_type("decimal"):
            precision, scale = (int(each.name) for each in node.expressions)
            assert scale <= precision <= 38
        if isinstance(node, exp.Select):
            # A column that a join is USING belongs to neither of its tables.
            joined = {each.name for join in node.args.get("joins") or () for each in join.args.get("using") or ()}
            for column in node.find_all(exp.Column):
                assert not column.table or column.name not in joined or column.parent_select is not node


@pytest.mark.pure
@pytest.mark.parametrize(
    "text",
    [
        "SELECT a::date FROM t",
        "SELECT CAST(a AS date) - CAST(b AS date) FROM t",
        "SELECT CAST(a AS date) + 1 FROM t",
        "SELECT t.a FROM t JOIN u USING (a)",
        "SELECT regexp_matches(a, 'b') FROM t",
        "SELECT CAST(a AS DECIMAL(40, 2)) FROM t",
        "SELECT a[1] FROM t",
    ],
)
def test_what_trino_has_not_is_found(text: str) -> None:
    with pytest.raises(AssertionError):
        require_trino(text)


@pytest.mark.pure
@pytest.mark.parametrize("name", sorted(NOT_OF_THE_LAKE))
def test_a_question_about_the_warehouse_itself_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(PlatformError, match=f'"{name}" is about what the warehouse notes of itself'):
        statement(questions()[name], defaults(date(2024, 9, 20)), "spark", str)


@pytest.mark.pure
@pytest.mark.parametrize(
    ("dialect", "table"),
    [
        ("duckdb", "DELTA_SCAN('s3://bucket/prefix/processed/mart_sales_day')"),
        ("spark", "delta.`s3://bucket/prefix/processed/mart_sales_day`"),
        ("athena", '"stack"."mart_sales_day"'),
    ],
)
def test_the_command_prints_the_sql_of_an_engine_over_the_lake(
    monkeypatch: pytest.MonkeyPatch, dialect: str, table: str
) -> None:
    monkeypatch.setenv("LAKE_URI", "s3://bucket/prefix")
    database = ["--database", "stack"] if dialect == "athena" else []
    arguments = ["ask", "revenue_by_period", "--dialect", dialect, *database, "--currency", "eur"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("-- What is sold, by period and currency of the orders?\n")
    assert f"FROM {table} AS sales" in result.output
    assert "'EUR'" in result.output
    assert "%(" not in result.output
    refused = CliRunner().invoke(main, [*arguments, "--json"])
    assert refused.exit_code != 0
    assert "Choose one of" in refused.output


@pytest.mark.pure
def test_athena_is_asked_for_tables_and_columns_that_terraform_tells_glue_of() -> None:
    glue = json.loads((Path(__file__).parents[2] / "deploy/terraform/glue_tables.json").read_text(encoding="utf-8"))
    for name in OF_THE_LAKE:
        text = statement(questions()[name], defaults(date(2024, 9, 20)), "athena", place("athena", "", "totesys"))
        tables = [each for each in sqlglot.parse_one(text, read="athena").find_all(exp.Table) if each.db]
        assert tables, name
        assert {(each.db, each.name) for each in tables} <= {("totesys", table) for table in glue}, name


@pytest.mark.pure
@pytest.mark.parametrize(
    ("postgres", "spark", "athena"),
    [
        (
            "a::date - b::date",
            "DATEDIFF(CAST(a AS DATE), CAST(b AS DATE))",
            "DATE_DIFF('day', CAST(b AS DATE), CAST(a AS DATE))",
        ),
        ("a::date + 7", "DATE_ADD(CAST(a AS DATE), 7)", "DATE_ADD('day', 7, CAST(a AS DATE))"),
        ("a::date - 7", "DATE_SUB(CAST(a AS DATE), 7)", "DATE_ADD('day', -7, CAST(a AS DATE))"),
        ("a::date - interval '2 days'", "CAST(a AS DATE) - INTERVAL '2' DAYS", "CAST(a AS DATE) - INTERVAL '2' DAY"),
        ("least(a, b)", "LEAST(a, b)", "LEAST(COALESCE(a, b), COALESCE(b, a))"),
        ("a AT TIME ZONE 'UTC'", "TO_UTC_TIMESTAMP(a, CURRENT_TIMEZONE())", "AT_TIMEZONE(a, 'UTC')"),
        ("to_char(a, 'YYYY')", "DATE_FORMAT(a, 'yyyy')", "DATE_FORMAT(a, '%Y')"),
        ("round(a, 2)", "ROUND(a, 2)", "ROUND(a, 2)"),
    ],
)  # fmt: skip
def test_what_sqlglot_says_otherwise_is_said_by_the_table(postgres: str, spark: str, athena: str) -> None:
    parsed = sqlglot.parse_one(f"SELECT {postgres}", read="postgres")
    assert said(parsed, "spark") == f"SELECT {spark}"
    assert said(parsed, "athena") == f"SELECT {athena}"


@pytest.mark.pure
@pytest.mark.parametrize(
    ("above", "below", "decimals", "expected"),
    [
        ("2.345", "1", 2, "2.35"),  # a float is 2.34499…
        ("-2.345", "1", 2, "-2.35"),
        ("1", "-3", 4, "-0.3333"),
        ("999999999999999.99", "3", 1, "333333333333333.3"),
        ("1", "0", 2, None),
    ],
)
def test_duckdb_divides_decimals_exactly_and_rounds_a_half_away_from_zero(
    above: str, below: str, decimals: int, expected: str | None
) -> None:
    parsed = sqlglot.parse_one(f"SELECT round({above}::numeric(38, 17) / {below}, {decimals})", read="postgres")
    with duckdb.connect() as connection:
        [(found,)] = connection.execute(said(parsed, "duckdb")).fetchall()
    assert (None if found is None else str(found)) == expected
