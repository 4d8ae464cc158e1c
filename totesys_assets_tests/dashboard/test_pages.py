"""The pages, drawn without a browser over a real warehouse."""

from __future__ import annotations

import codecs
import csv
import io
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pandas as pd
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from streamlit import config
from streamlit.testing.v1 import AppTest

from totesys_assets.audit.findings import Finding
from totesys_assets.audit.noted import note_findings
from totesys_assets.dashboard import asking, charts, frame, server, tables, world
from totesys_assets.dashboard.topics import sales
from totesys_assets.insights import questions, reading
from totesys_assets_tests.conftest import Platform


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Answers and sessions are cached for the whole process, whose main module AppTest leaves to be its page."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main
    asking.close()


def opened(page: str = "Overview", **filters: str | list[str]) -> AppTest:
    app = AppTest.from_string(f"from totesys_assets.dashboard import frame\nframe.main({page!r})", default_timeout=60)
    for name, value in filters.items():
        app.query_params[name] = value
    return app.run()


def choice(app: AppTest, name: str) -> Any:
    """One of the filters."""
    return app.get_by_key(name)


def said(app: AppTest) -> str:
    """All text of a page."""
    kinds = (app.markdown, app.caption, app.warning, app.info, app.error)
    return "\n".join(str(each.value) for kind in kinds for each in kind)


def drop(platform: Platform, name: str, *lines: str) -> None:
    path = platform.settings.home / "files" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.refreshed
def test_every_page_is_drawn_without_an_error(platform: Platform) -> None:
    for title, _ in frame.PAGES:
        app = opened(title)
        assert [each.value for each in app.exception] == []
        assert [each.value for each in (*app.warning, *app.error)] == []
        assert "As of the load at" in said(app)
        assert app.get_by_key("period") is not None


@pytest.mark.refreshed
def test_filters_come_from_the_address_and_a_value_that_is_none_is_ignored(platform: Platform) -> None:
    app = opened(currency="USD", period="All", rates="nonsense")
    assert not app.exception
    assert [(each.label, each.value) for each in app.metric][:2] == [("Revenue", r"\$2.7k"), ("Orders", "1")]
    assert "in USD, by the currency of the order" in said(app)
    assert choice(app, "rates").value == "day"


@pytest.mark.refreshed
def test_an_address_with_empty_filters_is_one_without_them(platform: Platform) -> None:
    app = opened(currency="", period="", rates="")
    assert "in GBP, by the currency of the order" in said(app)
    assert "Rates: European Central Bank" in said(app)
    app = opened("History", subject="")
    assert not app.exception
    assert "Sales order 1" in said(app)


@pytest.mark.refreshed
@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "0", "-5", "1.5", "1e400", "-1e400", "inf", "nan", "2147483648", "99999999999999999999", "9" * 5000),
        *("٣", "\uff11\uff12", "株式会社", "\x00", "%s", "'; --", "None", "9999-12-31", "9999-12-31T23:59"),
        *("0001-01-01T00:00", "2024-02-30T10:00", "2024-08-20T25:00"),
        *(["1", "2"], ["", "x"], ["EUR", "USD"], ["1e400", "1"]),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_whatever_stands_in_the_address_a_page_is_drawn(platform: Platform, value: str | list[str]) -> None:
    names = ("period", "currency", "rates", "subject", "number", "known")
    app = opened("History", **dict.fromkeys(names, value))
    assert [each.message for each in app.exception] == []
    assert [each.value for each in (*app.warning, *app.error)] == []
    assert "As of the load at" in said(app)


@pytest.mark.refreshed
def test_an_order_is_shown_by_its_number_in_the_address_whole_and_within_what_numbers_there_are(
    platform: Platform,
) -> None:
    for given, shown in (("7", "7"), ("2147483647", "2147483647"), ("2147483648", "1"), ("1e400", "1")):
        assert f"**Sales order {shown}**" in said(opened("History", number=given)), given


@pytest.mark.refreshed
def test_a_page_is_drawn_anew_when_a_day_begins(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    today = datetime.now(UTC).date()
    days = [today - timedelta(1)]  # of the first drawing; then midnight passes
    monkeypatch.setattr(asking, "_today", lambda: days.pop() if days else today)
    app = opened()
    assert not app.exception
    assert app.session_state[asking._DAY] == today


@pytest.mark.pure
def test_a_download_is_what_is_shown_without_what_is_true_at_its_moment_alone() -> None:
    kept = questions.Answer(("table_name", "rows", "minutes_ago"), [("dim_staff", 20, 0)])
    assert asking.Asked("freshness", {}, kept).csv().decode("utf-8-sig") == "table_name,rows\r\ndim_staff,20\r\n"
    assert {name: set(each.of_now) for name, each in questions.questions().items() if each.of_now} == {
        "freshness": {"minutes_ago"}
    }
    assert [name for name, each in questions.questions().items() if "clock_timestamp()" in each.sql] == ["freshness"]


@pytest.mark.pure
def test_a_text_is_no_formula_in_a_download_and_money_stays_a_number() -> None:
    formulas = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1")
    plain = ("Wooden", "a=1", "'quoted", "", "£5", "one\r=1", "one\n=1")
    rows = [(text, Decimal("-1.50"), -7, None, True) for text in (*formulas, *plain)]
    found = questions.Answer(("name", "amount", "number", "nothing", "yes"), rows)
    text = asking.Asked("span", {}, found).csv().decode("utf-8-sig")
    names, *lines = csv.reader(io.StringIO(text, newline=""))
    assert names == ["name", "amount", "number", "nothing", "yes"]
    assert [line[0] for line in lines] == [*(f"'{each}" for each in formulas), *plain]
    assert {tuple(line[1:]) for line in lines} == {("-1.50", "-7", "", "True")}


@pytest.mark.pure
def test_a_download_says_that_it_is_utf_8_as_excel_must_be_told() -> None:
    found = questions.Answer(("city",), [("Łódź",)])
    assert asking.Asked("span", {}, found).csv() == codecs.BOM_UTF8 + "city\r\nŁódź\r\n".encode()


@pytest.mark.refreshed
def test_each_answer_gives_its_sql_with_the_values_and_its_data(platform: Platform) -> None:
    app = opened("Sales")
    texts = [each.value for each in app.code]
    assert len(texts) == len(app.download_button) == 6
    for text in texts:
        assert "%(" not in text
        assert platform.query(text.replace("%", "%%"))  # as psql would run it


@pytest.mark.refreshed
def test_targets_and_marketing_spend_are_shown_against_what_was_sold_once_a_file_has_some(platform: Platform) -> None:
    app = opened("Sales", period="All")
    assert not [each.value for each in app.dataframe if {"target", "spend"} & {*each.value}]
    assert "totesys files --templates" in said(app)
    [(department,)] = platform.query("SELECT department_name FROM dim_staff WHERE staff_id = 1")
    [(country,)] = platform.query("SELECT country FROM dim_location WHERE location_id = 1")
    drop(
        platform,
        "sales_target/a.csv",
        "target_month,department_name,currency_code,amount",
        f"2024-08-01,{department},GBP,1000",
        "2024-08-01,Nobody,GBP,50",
    )
    platform.refresh()
    asking.loads_are_old()
    app = opened("Sales", period="All")
    assert not app.exception
    [targets] = [each.value for each in app.dataframe if "target" in each.value]
    rows = {row["department"]: row for row in targets.to_dict("records")}
    assert (rows["Nobody"]["target"], rows["Nobody"]["revenue"], rows["Nobody"]["reached"]) == (50, 0, 0)
    sold = rows[department]["revenue"]
    assert (rows[department]["target"], rows[department]["reached"]) == (1000, pytest.approx(sold / 10))
    assert sold > 0
    assert not [each.value for each in app.dataframe if "spend" in each.value]
    assert "totesys files --templates" not in said(app)
    drop(platform, "marketing_spend/a.csv", "spend_month,country,currency_code,amount", f"2024-08-01,{country},GBP,100")
    platform.refresh()
    asking.loads_are_old()
    app = opened("Sales", period="All")
    assert not app.exception
    [spend] = [each.value for each in app.dataframe if "spend" in each.value]
    [row] = spend.to_dict("records")
    assert (row["country"], row["spend"], row["revenue"]) == (country, 100, pytest.approx(sold))
    [unmatched] = [each.value for each in opened("Data").dataframe if "column_name" in each.value]
    assert list(unmatched["value"]) == ["Nobody"]
    assert {"targets_against_sales.sql", "marketing_by_country.sql"} <= {
        each.value.split("/")[-1].split()[0] for each in app.caption if "The SQL of this answer" in each.value
    }


@pytest.mark.refreshed
def test_a_table_of_many_targets_scrolls_and_one_of_few_is_as_high_as_its_rows(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    heights: dict[str, Any] = {}

    def noted(data: pd.DataFrame, columns: dict[str, Any], *, key: str, height: Any) -> None:
        heights[key] = height
        tables.table(data, columns, key=key, height=height)

    monkeypatch.setattr(sales, "table", noted)
    for count, is_whole in ((2, True), (60, False)):
        lines = [f"2024-08-01,Department {number},GBP,1" for number in range(count)]
        drop(platform, "sales_target/a.csv", "target_month,department_name,currency_code,amount", *lines)
        platform.refresh()
        asking.loads_are_old()
        assert not opened("Sales", period="All").exception
        assert (heights["targets-table"] == "content") == is_whole


@pytest.mark.refreshed
def test_a_new_order_is_there_after_the_next_load(platform: Platform) -> None:
    app = opened()
    assert app.metric[1].value == "1"
    platform.sql(
        "INSERT INTO sales_order SELECT 2, now(), now(), design_id, staff_id, counterparty_id, 10, 5, 1, "
        "agreed_payment_date, agreed_delivery_date, agreed_delivery_location_id FROM sales_order"
    )
    platform.refresh()
    asking.loads_are_old()
    app.run()
    assert not app.exception
    assert app.metric[1].value == "1"
    choice(app, "period").set_value("All").run()
    assert app.metric[1].value == "2"


@pytest.mark.refreshed
def test_the_life_of_an_order_tells_what_changed_in_each_version(platform: Platform) -> None:
    platform.sql("UPDATE sales_order SET units_sold = 1300")
    platform.refresh()
    text = said(opened("History"))
    assert "Sales order 1" in text
    assert "updated silently" in text
    assert "units 1001 → 1300" in text
    assert "There is no order of this number" in said(opened("History", number="99"))


@pytest.mark.refreshed
def test_of_an_order_with_very_many_versions_the_first_and_the_newest_are_shown(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("totesys_assets.dashboard.topics.history._SHOWN", 2)
    for units in (1300, 1301, 1302, 1303):
        platform.sql(f"UPDATE sales_order SET units_sold = {units}")
        platform.refresh()
    text = said(opened("History"))
    assert "2 versions later, the newest 2" in text
    assert [change in text for change in ("first seen", "1001 → 1300", "1300 → 1301", "1301 → 1302")] == [
        True,
        False,
        False,
        True,
    ]


@pytest.mark.refreshed
def test_it_is_said_whether_every_committed_version_is_there(platform: Platform) -> None:
    assert "every version that a refresh saw" in said(opened("History"))
    assert "It is not followed" in said(opened("Data"))
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO _followed VALUES ('fact_sales_order', '2024-08-20 09:00+00', '2024-08-21 10:00+00', 'Gone.'), "
            "('fact_sales_order', '2024-08-22 11:00+00', NULL, NULL), "
            "('fact_purchase_order', '2024-08-20 09:00+00', now(), 'No.')"
        )
    asking.loads_are_old()
    since = "22 Aug 2024, 11:00:00 UTC"
    text = said(opened("History")).replace("\\", "")
    assert f"every version that was committed since {since}, and before that every state" in text
    text = said(opened("History", subject="Purchase order")).replace("\\", "")
    assert "every version that a refresh saw, and from 20 Aug 2024, 09:00:00 UTC to " in text
    text = said(opened("Data")).replace("\\", "")
    assert f"Sales order: since {since}" in text
    assert "Purchase order: no longer, since" in text


@pytest.mark.refreshed
@pytest.mark.parametrize("is_whole", [False, True])
def test_what_was_known_of_a_period_that_is_not_complete_is_paler(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, is_whole: bool
) -> None:
    drawn: list[pd.DataFrame] = []
    monkeypatch.setattr("totesys_assets.dashboard.filters.Filters.is_whole", lambda *_: is_whole)
    monkeypatch.setattr(charts, "over_time", lambda data, *_, **__: drawn.append(data))
    assert not opened("History", period="All").exception
    assert {*drawn[-1]["whole"]} == {is_whole}


@pytest.mark.refreshed
def test_before_the_first_capture_nothing_was_known(platform: Platform) -> None:
    app = opened("History", period="All")
    assert "Nothing had been captured by then" in said(app)
    choice(app, "known").set_value(datetime.now(UTC).replace(tzinfo=None) + timedelta(minutes=1)).run()
    assert not app.exception
    assert "Nothing had been captured by then" not in said(app)


@pytest.mark.refreshed
def test_the_data_page_leads_to_dagster_where_its_address_is_known(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not list(opened("Data").link_button)
    monkeypatch.setenv("TOTESYS_UI_URL", "https://dagster.example.com")
    assert [each.url for each in opened("Data").link_button] == ["https://dagster.example.com"]


@pytest.mark.refreshed
def test_the_data_page_says_what_the_last_audit_found(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOTESYS_UI_URL", "https://dagster.example.com")
    app = opened("Data")
    assert "No audit has been noted yet" in said(app)
    found = [
        Finding("totesys/payment", "content_equals_source", False, "1 day differs: *2024-08-20*"),
        Finding("totesys/payment", "has_transaction", False, "3 rows break it", warning=True),
        Finding("totesys/staff", "history_plausible", True, "1 version"),
        Finding("totesys/staff", "ledger_agrees", True, "1 entry"),
    ]
    assert note_findings(platform.warehouse, found, whole=True, run_id="12ab") is None
    asking.loads_are_old()
    text = said(app.run())
    assert "4 checks, 2 passed, 1 failed, 1 warned about the data in the source." in text
    assert "totesys/payment: content\\_equals\\_source" in text
    assert "1 day differs\\: \\*2024-08-20\\*" in text
    assert "ledger" not in text
    assert "https://dagster.example.com/runs/12ab" in [each.url for each in app.link_button]
    monkeypatch.delenv("TOTESYS_UI_URL")
    assert not list(opened("Data").link_button)
    many = [Finding("totesys/staff", f"check_{number}", False, "differs") for number in range(10)]
    assert note_findings(platform.warehouse, many, whole=True) is None
    asking.loads_are_old()
    text = said(opened("Data"))
    assert "10 checks, 0 passed, 10 failed." in text
    assert "2 more are in the data of this answer" in text


@pytest.mark.refreshed
def test_the_data_page_says_how_many_dead_letters_there_are_and_not_their_text(platform: Platform) -> None:
    app = opened("Data")
    assert "None: every row of 14 tables has its types and keeps the rules." in said(app)
    platform.sql("UPDATE sales_order SET agreed_payment_date = 'a secret'")
    platform.refresh()
    asking.loads_are_old()
    app.run()
    assert not app.exception
    [letters] = [each.value for each in app.dataframe if "open_rows" in each.value]
    assert list(letters["table_name"]) == ["sales_order"]
    assert list(letters["open_rows"]) == [1]
    assert "secret" not in letters.to_csv()
    assert "None: every row" not in said(app)


@pytest.mark.refreshed
def test_a_warehouse_of_before_these_notes_is_told_in_plain_words(platform: Platform) -> None:
    with psycopg.connect(platform.warehouse_url) as connection:
        connection.execute("DROP TABLE _dead_letter, _finding")
    app = opened("Data")
    assert not app.exception
    assert [str(each.value).count("after an upgrade of the platform, totesys migrate") for each in app.warning] == [
        1,
        1,
    ]


@pytest.mark.refreshed
def test_revenue_stands_beside_the_name_so_that_a_telephone_shows_it_and_a_share_has_one_decimal(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {}
    monkeypatch.setattr(sales, "table", lambda data, columns, *, key, **_: drawn.update({key: (data, columns)}))
    assert not opened("Sales", period="All").exception
    assert {key: list(columns) for key, (_, columns) in drawn.items()} == {
        "country-table": ["country", "revenue", "orders", "units"],
        "customer-table": ["customer", "revenue", "share", "orders"],
        "staff-table": ["staff", "department", "revenue", "orders"],
    }
    data, columns = drawn["customer-table"]
    assert list(data["share"]) == [100.0]
    assert columns["share"]["type_config"]["format"] == "%.1f%%"


@pytest.mark.refreshed
def test_a_country_without_a_code_is_named_below_the_map(platform: Platform) -> None:
    platform.sql("UPDATE address SET country = 'Atlantis'")
    platform.refresh()
    assert "Not on the map" in said(opened("Sales"))
    assert "Atlantis" in said(opened("Sales"))


@pytest.mark.refreshed
def test_a_name_of_a_country_is_shown_and_makes_no_page_ask_another_machine(platform: Platform) -> None:
    platform.sql("UPDATE address SET country = '![x](https://example.com/x.png)'")
    platform.refresh()
    shown = said(opened("Sales"))
    assert r"\!\[x\]\(https\:" in shown
    assert "![x](" not in shown


@pytest.mark.refreshed
def test_without_any_rate_every_page_is_drawn_and_says_so(platform: Platform) -> None:
    platform.sql("INSERT INTO design VALUES (7, '2024-08-19 08:00', 'Plain', '/usr', 'a.json', '2024-08-19 08:00')")
    at = "'2024-08-22 10:00'"
    platform.sql(f"INSERT INTO sales_order VALUES (70, {at}, {at}, 7, 1, 1, 9, 2.50, 1, '2024-08-30', '2024-08-30', 1)")
    platform.refresh()
    today = datetime.now(UTC).date()
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute("DELETE FROM mart_exchange_rate")
        connection.execute(b"UPDATE mart_payments_day SET payment_date = '%b'" % str(today).encode())
    for title, _ in frame.PAGES:
        app = opened(title)
        assert [each.message for each in app.exception] == []
        assert "There are no rates for GBP: a sum has only what is in GBP already" in said(app)
    app = opened("Overview", period="All")
    assert "1 order in a currency without a rate: not in the revenue" in said(app)
    assert app.metric[0].value == "£22"


def test_an_empty_warehouse_is_said_in_plain_words(platform: Platform) -> None:
    app = opened()
    assert not app.exception
    assert "Nothing has been loaded yet" in said(app)


@pytest.mark.refreshed
def test_a_database_that_is_away_is_said_and_what_was_known_stays(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = opened()

    def away(*_: object, **__: object) -> None:
        raise psycopg.OperationalError("the server is down")

    with monkeypatch.context() as patch:
        patch.setattr(psycopg, "connect", away)
        for reader in asking._READERS.values():
            reader.close()
        asking.loads_are_old()
        app.run()
        assert not app.exception
        assert "The database is away" in said(app)
        assert app.metric[1].value == "1"
        choice(app, "currency").set_value("EUR").run()  # not known yet
        assert not app.exception
        assert "cannot be shown now" in said(app)
    asking.loads_are_old()
    app.run()
    assert "The database is away" not in said(app)
    assert "cannot be shown now" not in said(app)


@pytest.mark.refreshed
def test_answers_are_asked_for_again_only_after_a_load(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answer = reading.Reader.answer

    def counted(self: reading.Reader, question: str, **parameters: object) -> questions.Answer:
        asked.append(question)
        return answer(self, question, **parameters)

    monkeypatch.setattr(reading.Reader, "answer", counted)
    app = opened()
    assert "headline" in asked
    asked.clear()
    app.run()
    opened()  # another viewer
    assert asked == []


@pytest.mark.refreshed
def test_the_readers_login_is_used_where_there_is_one(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    role = f"reader_{os.urandom(4).hex()}"
    with psycopg.connect(platform.warehouse_url) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'".encode())
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}".encode())
    reader = make_conninfo(platform.warehouse_url, user=role, password="x")
    monkeypatch.setenv("WAREHOUSE_READER_URL", reader)
    for title, _ in frame.PAGES:
        app = opened(title)
        assert [each.value for each in (*app.exception, *app.warning, *app.error)] == []
    name = "SELECT usename FROM pg_stat_activity WHERE application_name = 'totesys_dashboard'"
    assert set(platform.query(name)) == {(role,)}


@pytest.mark.pure
def test_streamlit_is_told_to_listen_on_this_machine_only_and_to_send_no_statistics() -> None:
    told = server.options(server.HOST, server.PORT)
    assert told["server.address"] == "127.0.0.1"
    assert told["server.allowedHosts"] == ["127.0.0.1", "localhost", "::1"]
    assert told["browser.gatherUsageStats"] is False
    assert told["server.showEmailPrompt"] is False
    assert set(told) <= set(config.get_config_options())
    assert server.options("0.0.0.0", server.PORT)["server.allowedHosts"] == []


@pytest.mark.pure
def test_bars_are_in_the_order_of_the_rows_also_where_only_the_data_of_an_open_page_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr("streamlit.altair_chart", lambda chart, **_: drawn.append(chart.to_dict()))
    for names in (["Sales", "Finance"], ["Finance", "Sales"]):  # Streamlit draws anew what another order changes
        data = pd.DataFrame({"department": names, "revenue": [2.0, 1.0]})
        charts.by_name(data, "department", "revenue", name="departments", unit="GBP")
    orders = [layer["encoding"]["y"]["sort"] for chart in drawn for layer in chart["layer"]]
    assert orders == [["Sales", "Finance"]] * 2 + [["Finance", "Sales"]] * 2


@pytest.mark.pure
def test_days_without_an_order_have_their_place_on_the_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr("streamlit.altair_chart", lambda chart, **_: drawn.append(chart.to_dict()))
    days = pd.DataFrame({"period": pd.to_datetime(["2026-10-30", "2026-11-02"]), "of": "GBP", "revenue": 1.0})
    for data in (days, days[:0]):
        shown = data.assign(whole=True)
        charts.over_time(shown, "revenue", "of", ["GBP"], period="day", name="revenue", unit="GBP")
    places = [chart["encoding"]["x"]["scale"]["domain"] for chart in drawn]
    assert places == [["30 Oct", "31 Oct", "1 Nov", "2 Nov"], []]


@pytest.mark.pure
def test_small_countries_and_those_without_a_shape_are_circles() -> None:
    data = pd.DataFrame(
        {
            "country": ["France", "San Marino", "Guam", "Nowhere"],
            "map_code": ["250", "674", "316", None],
            "is_small": [False, True, False, True],
            "longitude": [2.5, 12.5, 144.8, None],
        }
    )
    assert {"250"} <= world.with_shape()
    assert list(world.as_circles(data)["country"]) == ["San Marino", "Guam"]
