"""Tables that a Spark Connect server builds: the same as DuckDB's, committed by the platform alone."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import date, datetime, time, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.compute as pc
import pytest
from deltalake.transaction import AddAction

from totesys_assets import engine
from totesys_assets.capture.ledger import Ledger
from totesys_assets.catalogue.catalogue import Table, catalogue
from totesys_assets.catalogue.queries import Query, query_of
from totesys_assets.days import DayRange, Days, DaySet
from totesys_assets.errors import ConnectionFailed, LakeFailed, PlatformError
from totesys_assets.lake.commit import LostRace, commit
from totesys_assets.lake.files import Files, listed
from totesys_assets.lake.tables import PROCESSED, Lake
from totesys_assets.load.changed import changes
from totesys_assets.transform import build as build_module
from totesys_assets.transform import schemas
from totesys_assets.transform.build import build, built_from, processed_name
from totesys_assets.transform.engines import in_spark, spark_session
from totesys_assets.transform.engines.in_spark import InSpark
from totesys_assets.transform.engines.interface import Engine
from totesys_assets_tests.harness.sail import Sail, needs_sail
from totesys_assets_tests.rows import hold, table_rows, version
from totesys_assets_tests.transform.engines.conftest import RECENT, SEEN, fill

pytestmark = needs_sail
TABLES = [table for table in catalogue().warehouse.values() if table.day_column]
SALES = catalogue().star["fact_sales_order"]
MART = catalogue().marts["mart_sales_day"]
ALL = DayRange(date(2023, 12, 1), date(2024, 4, 30))
LEAP_DAY = DayRange(RECENT[2], RECENT[2])
# Of its month, another day has rows, too.
IN_MARCH = DayRange(RECENT[3], RECENT[3])
NOON = datetime.combine(RECENT[3], time(12))
LATER = SEEN + timedelta(days=1)


def made(lake: Lake, table: Table, by: Engine | None, days: Days = ALL, *, changes_only: bool = False) -> None:
    build(lake, catalogue(), table, days=days, run_id="test", changes_only=changes_only, made_by=by)


def held(lake: Lake, table: Table) -> Counter[tuple[Any, ...]]:
    """The rows of a table as they lie in the lake, and how often each does."""
    rows = table_rows(lake.open_processed(table), [str(table.day_column)])
    return Counter(tuple(row.items()) for row in rows)


def states(lake: Lake, table: Table) -> dict[str, tuple[str, int]]:
    name = processed_name(table)
    return {key: (entry.state, entry.rows) for key, entry in Ledger(lake).newest([name]).get(name, {}).items()}


def files(lake: Lake, table: Table) -> list[Path]:
    return sorted(Path(lake.uri, PROCESSED, table.name).rglob("*.parquet"))


@contextmanager
def copied(lake: Lake) -> Iterator[Lake]:
    """The same lake once more, to be built by DuckDB."""
    other = Path(f"{lake.uri} copied")
    shutil.copytree(lake.uri, other)
    yield Lake(str(other))
    shutil.rmtree(other)


def require_as_by_duckdb(lake: Lake, table: Table, sail: str, days: Days = ALL, *, changes_only: bool = False) -> None:
    with copied(lake) as yardstick:
        made(yardstick, table, None, days, changes_only=changes_only)
        made(lake, table, InSpark(sail), days, changes_only=changes_only)
        assert held(lake, table) == held(yardstick, table), table.name
        assert states(lake, table) == states(yardstick, table), table.name
        assert built_from(lake.open_processed(table)) == built_from(yardstick.open_processed(table))


def test_every_table_is_what_duckdb_makes_of_it_at_first_then_by_changes_and_by_days(lake: Lake, sail: str) -> None:
    fill(lake, 0)
    for table in TABLES:
        require_as_by_duckdb(lake, table, sail)
    hold(lake, "sales_order", version("sales_order", "update", SEEN + timedelta(days=1), sales_order_id=3), dated=True)
    fill(lake, 1, rows=5, seen=SEEN + timedelta(days=2))
    for table in TABLES:
        require_as_by_duckdb(lake, table, sail, changes_only=True)
    some = DaySet((LEAP_DAY, IN_MARCH, DayRange(date(2024, 3, 3), date(2024, 3, 20))))
    for table in TABLES:
        before = held(lake, table)
        require_as_by_duckdb(lake, table, sail, some)
        assert held(lake, table) == before, "what was made anew was what there was"


def test_the_commit_is_the_platforms_with_statistics_of_all_rows(lake: Lake, sail: str) -> None:
    fill(lake, 0)
    made(lake, SALES, InSpark(sail))
    table = lake.open_processed(SALES)
    log = listed(table)
    assert table.transaction_version("build") == 1
    assert pc.sum(log.column("num_records")).as_py() == held(lake, SALES).total() > 0
    assert {f"min.{SALES.day_column}", "max._recorded_at", "null_count.unit_price"} <= set(log.column_names)
    assert log.column(f"min.{SALES.day_column}").null_count == 0
    assert len(set(log.column("partition._month").to_pylist())) == len(log), "one file a month"


def test_days_of_a_month_are_replaced_and_the_others_stay(lake: Lake, sail: str) -> None:
    fill(lake, 0)
    made(lake, SALES, InSpark(sail))
    before = held(lake, SALES)
    made(lake, SALES, InSpark(sail), IN_MARCH)
    assert held(lake, SALES) == before
    target = lake.open_processed(SALES)
    target.delete(f"created_date = '{IN_MARCH.first}'")
    lost = before - held(lake, SALES)
    assert lost
    assert held(lake, SALES)
    made(lake, SALES, InSpark(sail), IN_MARCH)
    assert held(lake, SALES) == before


def test_a_load_finds_only_what_changed_in_a_mart_whose_other_months_lie_in_files_of_the_same_name(
    lake: Lake, sail: str
) -> None:
    fill(lake, 0)
    made(lake, SALES, None)
    made(lake, MART, InSpark(sail))
    before = lake.open_processed(MART)
    assert len({path.rpartition("/")[2] for path in Files(before).paths}) < len(Files(before).paths)
    hold(lake, "sales_order", version("sales_order", "insert", LATER, sales_order_id=999, created_at=NOON))
    made(lake, SALES, None, IN_MARCH)
    made(lake, MART, InSpark(sail), IN_MARCH)
    with engine.session() as connection:
        for name in changes(connection, MART, before, lake.open_processed(MART)):
            found = connection.execute(f"SELECT DISTINCT created_date FROM {name}").fetchall()
            assert found == ([(IN_MARCH.first,)] if name == "mart_changed" else [])


def test_of_two_builds_the_slower_one_begins_again(lake: Lake, sail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(lake, 0)
    lost: list[bool] = []

    def overtaken(*arguments: Any, **named: Any) -> None:
        if not lost:
            lost.append(True)
            fill(lake, 1, rows=3, seen=SEEN + timedelta(days=2))
            made(lake, SALES, None)
        commit(*arguments, **named)

    monkeypatch.setattr(in_spark, "commit", overtaken)
    made(lake, SALES, InSpark(sail))
    found = held(lake, SALES)
    made(lake, SALES, None)
    assert held(lake, SALES) == found
    assert lost


@pytest.mark.parametrize(
    ("failure", "changes_only"),
    [
        (LostRace("the file exists"), True),
        (KeyboardInterrupt(), False),
        pytest.param(LostRace("the file exists"), False, marks=pytest.mark.thorough),
        pytest.param(KeyboardInterrupt(), True, marks=pytest.mark.thorough),
        pytest.param(LakeFailed("timed out"), True, marks=pytest.mark.thorough),
        pytest.param(LakeFailed("timed out"), False, marks=pytest.mark.thorough),
    ],
)
def test_files_of_a_commit_whose_answer_is_lost_stay_and_nothing_is_doubled(
    lake: Lake, sail: str, monkeypatch: pytest.MonkeyPatch, failure: BaseException, changes_only: bool
) -> None:
    fill(lake, 0)
    made(lake, SALES, InSpark(sail))
    fill(lake, 1, rows=5, seen=SEEN + timedelta(days=2))
    failures = [failure]

    def answer_lost(*arguments: Any, **named: Any) -> None:
        commit(*arguments, **named)
        if failures:
            raise failures.pop()

    monkeypatch.setattr(in_spark, "commit", answer_lost)
    with copied(lake) as yardstick:
        made(yardstick, SALES, None, changes_only=changes_only)
        with nullcontext() if isinstance(failure, LostRace) else pytest.raises(type(failure)):
            made(lake, SALES, InSpark(sail), changes_only=changes_only)
        assert not failures
        assert held(lake, SALES) == held(yardstick, SALES)
        made(lake, SALES, InSpark(sail), changes_only=changes_only)
        assert held(lake, SALES) == held(yardstick, SALES)
        assert states(lake, SALES) == states(yardstick, SALES)


def test_a_server_that_dies_in_mid_build_leaves_nothing_and_the_next_build_completes(
    lake: Lake, sail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake, 0)
    server = Sail()
    make = InSpark._make
    killed: list[bool] = []

    def dying(self: InSpark, session: Any, *rest: Any) -> int:
        make(self, session, *rest)  # what it wrote is there
        assert files(lake, SALES)
        server.kill()
        killed.append(True)
        return make(self, session, *rest)

    monkeypatch.setattr(InSpark, "_make", dying)
    with pytest.raises(PlatformError) as failure:
        made(lake, SALES, InSpark(f"{server.remote}/;x-key=secret"))
    assert str(failure.value).startswith(f'Building "fact_sales_order" failed: SPARK_REMOTE ({server.remote}) says: ')
    assert str(failure.value).endswith("Nothing was committed; check the server, then refresh.")
    assert killed
    assert "\n" not in str(failure.value)
    assert "secret" not in str(failure.value)
    assert lake.open_processed(SALES).version() == 0
    assert (files(lake, SALES), states(lake, SALES)) == ([], {})
    monkeypatch.undo()
    require_as_by_duckdb(lake, SALES, sail)


def test_files_that_the_platform_does_not_see_are_refused(
    lake: Lake, sail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake, 0)
    monkeypatch.setattr(in_spark, "place_of", lambda _: f"file://{tmp_path}/elsewhere")
    with pytest.raises(PlatformError, match=r"was to write [\d,]+ rows where 0 are in the lake at .* mount the folder"):
        made(lake, SALES, InSpark(sail))
    assert lake.open_processed(SALES).version() == 0


def test_a_lake_that_the_server_does_not_see_is_told_in_one_sentence(
    lake: Lake, sail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake, 0)
    from totesys_assets.lake import files as module

    monkeypatch.setattr(module, "place_of", lambda _: "file:///nowhere")
    with pytest.raises(PlatformError, match=r"sees 0 rows where \d+ are in the lake at .* mount the folder") as failure:
        made(lake, SALES, InSpark(sail))
    assert "\n" not in str(failure.value)


def test_a_row_without_a_value_that_must_be_there_and_a_mart_of_other_days_are_refused(
    lake: Lake, sail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake, 0)
    mart = catalogue().marts["mart_sales_day"]
    changes = {"COUNT(*) AS orders": ("NULL AS orders", 'rows without "orders"')}
    changes["created_date,\n    currency_id,\n    CASE"] = (
        "created_date + INTERVAL '40' DAY AS created_date,\n    currency_id,\n    CASE",
        "gives rows of 2024-04-09 when it is given those of other days",
    )
    for old, (new, said) in changes.items():
        query = query_of(mart.name)
        assert old in query.sql
        changed = Query(query.name, query.sql.replace(old, new), query.description, query.sources, facts=query.facts)
        with monkeypatch.context() as patch:
            for module in (build_module, schemas):
                patch.setattr(
                    module, "query_of", lambda name, changed=changed: changed if name == mart.name else query_of(name)
                )
            with pytest.raises(PlatformError, match=said):
                made(lake, mart, InSpark(sail), LEAP_DAY)
        assert files(lake, mart) == []


def test_nulls_are_counted_in_a_file_that_does_not_tell_of_them(lake: Lake) -> None:
    fill(lake, 0)
    table = catalogue().star["dim_transaction"]
    made(lake, table, None)
    target = lake.open_processed(table)
    silent = [
        AddAction(str(path), 0, {}, 0, True, '{"nullCount": {}}') for path in listed(target).column("path").to_pylist()
    ]
    work: Any = SimpleNamespace(target=target)
    wanted = sum(dict(row)["sales_order_id"] is None for row in held(lake, table).elements())
    assert sum(in_spark._nulls(work, each, "sales_order_id") for each in silent) == wanted > 0
    assert sum(in_spark._nulls(work, each, "transaction_id") for each in silent) == 0


def test_a_value_that_cannot_be_computed_is_an_error_and_no_null(lake: Lake, sail: str) -> None:
    hold(lake, "sales_order", version("sales_order", agreed_payment_date="2024-13-99"), dated=True)
    with pytest.raises(PlatformError, match=r'Building "fact_sales_order" failed: SPARK_REMOTE .*2024-13-99'):
        made(lake, SALES, InSpark(sail), DayRange(date(2024, 8, 1), date(2024, 8, 31)))


@pytest.mark.parametrize(
    ("remote", "said"),
    [
        (
            "sc://127.0.0.1:1/;token=secret",
            r"^SPARK_REMOTE cannot be reached \(sc://127.0.0.1:1\): Connection refused\.",
        ),
        ("sc://no.such.host.invalid", r"^SPARK_REMOTE cannot be reached \(sc://no.such.host.invalid:15002\): .*Check"),
    ],
)
def test_a_server_that_is_not_there_is_told_at_once(lake: Lake, remote: str, said: str) -> None:
    fill(lake, 0, rows=2)
    with pytest.raises(ConnectionFailed, match=said):
        made(lake, SALES, InSpark(remote))


def test_what_is_no_spark_connect_server_is_told_in_a_sentence(lake: Lake) -> None:
    fill(lake, 0, rows=2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        hang_up = threading.Thread(target=_hang_up, args=[silent])
        hang_up.start()
        with pytest.raises(PlatformError, match=rf"SPARK_REMOTE \(sc://127.0.0.1:{port}\) says: "):
            made(lake, SALES, InSpark(f"sc://127.0.0.1:{port}"))
        silent.shutdown(socket.SHUT_RDWR)
        hang_up.join()


def _hang_up(listening: socket.socket) -> None:
    with suppress(OSError):
        while True:
            listening.accept()[0].close()


def test_an_old_server_is_refused(lake: Lake, sail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(lake, 0, rows=2)
    monkeypatch.setattr(spark_session, "_LEAST_VERSION", (99, 1))
    with pytest.raises(PlatformError, match=r"is Spark 4\.\d+\.\d+, and the platform needs 99.1 or later"):
        made(lake, SALES, InSpark(sail))


def test_a_missing_client_is_told_with_what_to_install(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(lake, 0, rows=2)
    spark_session._client.cache_clear()
    monkeypatch.setitem(sys.modules, "pyspark.sql.connect.client.retries", None)
    with pytest.raises(PlatformError, match=r"run pip install 'totesys-assets\[spark\]'"):
        made(lake, SALES, InSpark("sc://127.0.0.1:1"))
    spark_session._client.cache_clear()


def test_the_client_is_imported_in_a_process_without_a_file(sail: str) -> None:
    program = (
        f"from totesys_assets.transform.engines.spark_session import connected\nwith connected({sail!r}, 'x'): print(5)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "5\n"
