"""``totesys ask``: the list of questions, an answer in each form, and what is said when there is none."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from click.testing import CliRunner

from totesys_assets.commands import main
from totesys_assets.insights.questions import PARAMETERS, defaults, questions
from totesys_assets_tests.conftest import Platform

SINCE = ("--first", "2024-08-01", "--last", "2024-08-31")


def ask(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["ask", *arguments])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output


def test_the_list_has_every_question_and_the_command_an_option_for_every_parameter() -> None:
    listed = ask()
    assert all(name in listed for name in questions())
    options = {parameter.name for parameter in main.commands["ask"].params}
    assert options >= PARAMETERS.keys()


@pytest.mark.refreshed
def test_an_answer_is_the_same_as_a_table_as_csv_as_json_and_by_its_sql(platform: Platform) -> None:
    table = ask("revenue_by_period", "--currency", "eur", *SINCE)
    assert "What is sold, by period and currency of the orders?" in table
    assert "2,432.43" in table
    assert (
        "Asked with --currency EUR, --basis day, --first 2024-08-01, --last 2024-" in table.partition("2,432.43")[0]
    )  # before the figures
    [row] = csv.DictReader(io.StringIO(ask("revenue_by_period", "--currency", "EUR", *SINCE, "--csv")))
    expected = {
        "period": "2024-08-01",
        "currency": "EUR",
        "orders": "1",
        "units": "1001",
        "own_revenue": "2432.43",
        "revenue": "2432.43",
        "unconverted": "0",
    }
    assert row == expected
    document = json.loads(ask("revenue_by_period", "--currency", "EUR", *SINCE, "--json"))
    assert {name: str(value) for name, value in document["rows"][0].items()} == expected
    assert document["parameters"]["first"] == "2024-08-01"
    statement = ask("revenue_by_period", "--currency", "EUR", *SINCE, "--sql")
    assert statement.startswith("-- What is sold")
    [by_sql] = platform.query(statement)
    assert [str(value) for value in by_sql] == [*expected.values()]


@pytest.mark.refreshed
@pytest.mark.parametrize("name", ["a\rb", "a\nb", 'a,"b"', "=1+1"])
def test_a_text_in_csv_is_as_it_is_whatever_is_in_it(platform: Platform, name: str) -> None:
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute("UPDATE dim_design SET design_name = %s", [name])
    printed = ask("revenue_by_design", *SINCE, "--csv")
    [row] = csv.DictReader(io.StringIO(printed, newline=""))
    assert (row["design"], row["orders"]) == (name, "1")
    assert "\r\n" not in printed


@pytest.mark.refreshed
def test_a_table_leaves_out_what_is_for_maps_and_cuts_no_number_short(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    shown = ask("revenue_by_country", *SINCE)
    assert "PRK" not in shown  # the address of the only sale is in Turkey
    assert "TUR" in shown
    assert "792" not in shown  # by which a map knows it
    assert "1,001" in shown
    assert "There may be more: a larger --rows" in ask("newest_orders", "--rows", "1")
    newest = ask("newest_orders")
    assert "There may be more" not in newest
    assert "2,432.43" in newest
    assert "2024-08-20 09:10:11" in newest
    assert "There is nothing." in ask("unconverted_orders", *SINCE)


@pytest.mark.refreshed
def test_a_table_is_whole_however_narrow_the_terminal(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (40, 70, 80, 100, 130):
        monkeypatch.setenv("COLUMNS", str(columns))
        for name in ("overdue_payments", "newest_orders", "revenue_by_customer", "change_by_period", "rates_used"):
            lines = [line for line in ask(name).splitlines() if line.startswith(("┏", "┃", "┡", "│", "└"))]
            assert lines, name
            assert {len(line) for line in lines} == {len(lines[0])}, name
            assert {line[-1] for line in lines} <= set("┓┃┩│┘"), name
            assert "…" not in "".join(lines), name


@pytest.mark.parametrize("name", questions())
def test_the_sql_of_every_question_is_whole(name: str) -> None:
    statement = ask(name, "--sql")
    assert "%(" not in statement
    assert statement.startswith(f"-- {questions()[name].text}")
    assert questions()[name].sql.count("\n") + 1 <= statement.count("\n")


def test_without_options_it_is_the_last_twelve_months_and_this_one_in_pounds() -> None:
    assert defaults(date(2024, 2, 29))["first"] == date(2023, 2, 1)
    today = datetime.now(UTC).date()
    statement = ask("headline", "--sql")
    assert f"BETWEEN '{date(today.year - 1, today.month, 1)}' AND '{today}'" in statement
    assert "to_currency = 'GBP'" in statement
    assert "BETWEEN '2023-03-01' AND '2024-03-31'" in ask("headline", "--last", "2024-03-31", "--sql")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["revenue"], 'There is no question "revenue": totesys ask lists them.'),
        (["revenue_by_contry"], 'totesys ask lists them. Did you mean "revenue_by_country"?'),
        (["--csv"], "Name the question"),
        (["headline", "--csv", "--json"], "Choose one of --csv, --json and --sql or --dialect."),
        (["headline", "--database", "mine"], "--database names a database for --dialect athena."),
        (["headline", "--database", "mine", "--dialect", "spark"], "--database names a database for --dialect athena."),
        (["headline", "--rows", "3"], '"headline" does not take --rows. Its options: --rate-day, --basis'),
        (["headline", "--currency", "pounds"], "'pounds' is no ISO code of a currency: write it as GBP."),
        (["headline", "--first", "1.2.2026"], "'1.2.2026' is no day: write it as 2026-01-31."),
        (["headline", "--first", "2026-02-01", "--last", "2026-01-31"], "--first is 2026-02-01, after --last"),
        (["headline", "--first", "9999-01-01"], "the last day unless --last says another"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(arguments: list[str], said: str) -> None:
    assert said in " ".join(ask(*arguments, code=2).split())


@pytest.mark.refreshed
def test_a_currency_or_a_day_without_rates_is_refused_with_those_that_have_some(platform: Platform) -> None:
    said = " ".join(ask("headline", "--currency", "jpy", *SINCE, code=2).split())
    assert "There are no rates of JPY. There are rates of EUR, GBP, USD: the euro, and what ToteSys trades in." in said
    today = datetime.now(UTC).date()
    ((last,),) = platform.query("SELECT max(day) FROM mart_exchange_rate")
    assert isinstance(last, date)
    until = min(today, last)  # the newest rates hold for two years, unless others come
    (found,) = csv.DictReader(io.StringIO(ask("headline", "--rate-day", str(until), *SINCE, "--csv")))
    assert (Decimal(found["revenue"]) > 0, found["unconverted"]) == (True, "0")
    for day in ("1990-01-01", str(until + timedelta(days=2)), "2199-12-31"):
        said = " ".join(ask("headline", "--rate-day", day, *SINCE, code=2).split())
        assert f"There are no rates of {day}. There are rates of the days from " in said
        assert "to 2024-08-30." in said
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute("UPDATE mart_exchange_rate SET day = day + 10000 WHERE day = %s", [last])
    ask("headline", "--rate-day", str(today), *SINCE)
    assert "There are no rates of " in ask("headline", "--rate-day", str(today + timedelta(days=2)), *SINCE, code=2)
    platform.sql("INSERT INTO currency VALUES (4, 'JPY', '2024-08-19 08:00', '2024-08-19 08:00')")
    platform.refresh()
    assert "1,001" in ask("headline", "--currency", "jpy", *SINCE)  # ToteSys trades in it: some may need no rate
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute("DELETE FROM mart_exchange_rate")
    assert "1,001" in ask("headline", *SINCE)  # nothing converts: the answer counts what it cannot convert


@pytest.mark.refreshed
def test_it_says_so_when_money_is_converted_at_rates_of_long_before(platform: Platform) -> None:
    newest = date(2024, 8, 30)
    old = f"The newest rates are of {newest}: money of later days is converted at these."

    def is_warned(*arguments: str) -> bool:
        result = CliRunner().invoke(main, ["ask", *arguments])
        assert result.exit_code == 0
        return old in " ".join(result.stderr.split())

    assert is_warned("headline")
    assert is_warned("headline", "--csv")
    assert is_warned("headline", *SINCE, "--rate-day", "2025-01-01")
    for days, is_old in ((6, False), (7, True)):
        assert is_warned("headline", "--first", "2024-08-20", "--last", str(newest + timedelta(days=days))) == is_old
    assert not is_warned("headline", "--rate-day", str(newest))
    assert not is_warned("recent_changes")  # no money is converted


@pytest.mark.refreshed
def test_it_says_so_when_nothing_was_recorded_by_a_moment(platform: Platform) -> None:
    ((first,),) = platform.query("SELECT min(_recorded_at) FROM fact_sales_order")
    assert isinstance(first, datetime)
    for moment, is_early in ((first - timedelta(seconds=1), True), (first + timedelta(seconds=1), False)):
        result = CliRunner().invoke(main, ["ask", "known_on", *SINCE, "--moment", moment.isoformat()])
        assert result.exit_code == 0
        said = f"Nothing was known then: the first record is of {first.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC."
        assert (said in " ".join(result.stderr.split())) == is_early


def test_before_the_first_refresh_it_says_what_to_do(platform: Platform) -> None:
    assert "totesys refresh makes them" in " ".join(ask("headline", code=1).split())


@pytest.mark.refreshed
def test_it_asks_with_the_login_of_a_reader_who_cannot_write(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE curious LOGIN PASSWORD 'hush'")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO curious")
    url = psycopg.conninfo.make_conninfo(platform.warehouse_url, user="curious", password="hush")
    monkeypatch.setenv("WAREHOUSE_READER_URL", url)
    monkeypatch.delenv("WAREHOUSE_URL")
    try:
        assert "1,001" in ask("headline", *SINCE)
    finally:
        with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
            connection.execute("DROP OWNED BY curious; DROP ROLE curious")
