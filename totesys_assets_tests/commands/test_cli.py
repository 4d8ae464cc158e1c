"""The command line as a newcomer uses it: embedded databases, progress, summaries, errors, one Ctrl-C."""

from __future__ import annotations

import calendar
import io
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import psutil
import psycopg
import pytest
from click.testing import CliRunner

from totesys_assets.assets import blocked
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.commands import main
from totesys_assets.commands.bar import progress_bar
from totesys_assets.dashboard import server as dashboard
from totesys_assets.databases import databases, embedded
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets.settings import Settings
from totesys_assets.terminal import Console, program
from totesys_assets_tests.conftest import Platform, PostgresServer

TOTESYS = str(Path(sys.executable).with_name("totesys"))


class Home:
    """A newcomer's folder, and the command run in it as they would."""

    first: str  # what its first refresh printed

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER_", "TOTESYS_"))}
        self.env = {**clean, "TOTESYS_HOME": str(folder)}
        self.printed = list[str]()  # by every command, of this and of other tests

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run([TOTESYS, *arguments], env=self.env, capture_output=True, text=True, check=False)
        self.printed += [ended.stdout, ended.stderr]
        return ended

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [TOTESYS, *arguments],
            env={**self.env, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def servers(self) -> list[EmbeddedServer]:
        return [*embedded(Settings.from_env(self.env))]  # started by a test, they are as the commands start them

    def processes(self) -> list[str]:
        """Command lines of all processes on the machine that mention the home, or were told of it."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                command = " ".join(process.cmdline())
                if str(self.folder) in command or process.environ().get("TOTESYS_HOME") == str(self.folder):
                    found.append(command)
        return found


@pytest.fixture(scope="module")
def home(scratch: Path) -> Iterator[Home]:
    """A home whose first refresh was made, at a fiftieth of the real size."""
    folder = scratch / "home"
    made = Home(folder)
    first = made.run("refresh", "--scale", "0.02")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "Up to date in" in first.stdout
    assert "Warning" not in first.stdout + first.stderr
    assert re.search(r"fact_sales_order\s+│\s+224 │\s+224 │", first.stdout)
    assert str(folder / "lake") in first.stdout
    assert f"Next: {TOTESYS} up" in first.stdout
    made.first = first.stdout
    yield made
    for server in made.servers():
        if server.running():
            server.stop()


def test_what_a_refresh_says_of_its_time_adds_up(home: Home) -> None:
    line = next(each for each in home.first.splitlines() if "Up to date in" in each)
    whole, *shares = map(float, re.findall(r"(\d+\.\d) s\b", line))
    assert len(shares) > 5
    assert abs(whole - sum(shares)) < 0.05 * (len(shares) + 2)  # each is rounded


def test_a_refresh_says_how_many_versions_it_captured_of_each_table(home: Home) -> None:
    (line,) = [each for each in home.first.splitlines() if each.startswith("captured ")]
    whole, *counts = (int(each.replace(",", "")) for each in re.findall(r"\b\d[\d,]*\b", line))
    assert len(counts) > 10
    assert whole == sum(counts)
    assert "sales_order 224" in line


def test_a_first_refresh_prints_what_the_readme_shows(home: Home) -> None:
    def shape(line: str) -> str:
        line = re.sub(r"(lake|warehouse) +.*[/:].*", r"\1", line)
        line = re.sub("|".join(calendar.month_name[1:]), "#", line)
        return re.sub(r"\d[\d ,.:-]*", "# ", re.sub(r"[\s━─]+", " ", line)).strip()

    def heads(lines: list[str]) -> set[str]:
        return {line.partition(" ")[0] for line in lines if line and line[0] not in "┏┃┡│└"}

    readme = Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
    (picture,) = re.findall(r"^```text\n(· .*?)^```", readme, re.DOTALL | re.MULTILINE)
    shown = [shape(line) for line in picture.splitlines() if "…  " not in line]
    printed = [shape(line) for line in home.first.partition("Next:")[0].splitlines()]
    assert len(shown) > 10
    cut = [line.removesuffix("…") for line in shown if line.endswith("…")]
    assert [line for line in shown if line not in printed and not line.endswith("…")] == []
    assert [line for line in cut if not any(each.startswith(line) for each in printed)] == []
    assert heads(printed) == heads(shown)


def test_the_second_refresh_says_that_nothing_changed(home: Home) -> None:
    again = home.run("refresh")
    assert again.returncode == 0
    assert "Nothing changed" in again.stdout


def imports_none_of(home: Home, *names: str) -> bool:
    """Whether a refresh that finds nothing changed imports none of the modules.

    Several may be needed: between two of them, the server may analyze tables that were written to, which takes a
    transaction id.
    """
    for _ in range(4):
        home.run("refresh")
        ended = subprocess.run(
            [sys.executable, "-X", "importtime", TOTESYS, "refresh"],
            env=home.env,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "Nothing changed" in ended.stdout
        imported = set(re.findall(r"\| +([\w.]+)$", ended.stderr, re.MULTILINE))
        assert "totesys_assets.staleness.look" in imported
        if imported.isdisjoint(names):
            return True
    return False


def test_a_refresh_that_finds_nothing_changed_waits_for_neither_dagster_nor_pandas(home: Home) -> None:
    with databases(Settings.from_env({"TOTESYS_HOME": str(home.folder)})):  # a restarted server is looked at closely
        assert imports_none_of(home, "dagster", "pandas")


def test_no_process_is_left_when_a_command_ends(home: Home) -> None:
    home.run("status")
    assert home.processes() == []


@pytest.mark.thorough
def test_what_the_simulator_does_arrives_with_the_next_refresh(home: Home) -> None:
    simulated = home.run("simulate", "--events", "8", "--seed", "4")
    assert len(simulated.stdout.splitlines()) == 8
    before = json.loads(home.run("status", "--json").stdout)
    assert before["stale"]
    refreshed = home.run("refresh", "--json")
    document = json.loads(refreshed.stdout)
    assert document["changed"]
    assert document["success"]
    assert document["problems"] == []
    assert sum(document["versions"].values()) >= 8
    after = json.loads(home.run("status", "--json").stdout)
    assert after["stale"] == {}
    assert after["dead_letters"] == []
    assert sum(table["versions"] for table in after["tables"]) > sum(table["versions"] for table in before["tables"])


def test_a_backfill_of_a_range_can_be_asked_for(home: Home) -> None:
    day = (home.folder / "first_day").read_text().strip()
    assert "Give --from too" in home.run("refresh", "--to", day).stderr
    document = json.loads(home.run("refresh", "--from", day, "--to", day, "--json").stdout)
    (run,) = document["runs"]
    assert (run["from"], run["to"], run["success"]) == (day, day, True)
    assert len(run["assets"]) == 21


def test_a_backfill_of_several_runs_says_when_each_of_them_is_done(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(home.env, "TOTESYS_RANGE_ROWS", "9000")
    ended = home.run("refresh", "--from", (home.folder / "first_day").read_text().strip())
    told = re.findall(r"^· (\d+) of (\d+), 21 assets, \S+ to \S+: done in [\d.]+ s$", ended.stdout, re.MULTILINE)
    assert len(told) > 1, ended.stdout + ended.stderr
    assert told == [(str(number), str(len(told))) for number in range(1, len(told) + 1)]
    first = home.folder.joinpath("first_day").read_text().strip()
    assert re.search(rf"^✓ Brought in {first} to [\d-]+ in [\d.]+ s, in {len(told)} runs: ", ended.stdout, re.MULTILINE)


def test_a_refresh_that_reaches_no_totesys_takes_nothing_from_the_home(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(home.env, "TOTESYS_URL", "postgresql://totesys@127.0.0.1:1/totesys")
        ended = home.run("refresh")
        assert ended.returncode == 1
        assert "TOTESYS_URL cannot be reached" in ended.stdout + ended.stderr
    ended = home.run("refresh")
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_days_in_the_wrong_order_are_refused() -> None:
    code, output = invoke("refresh", "--from", "2026-01-02", "--to", "2026-01-01")
    assert code == 2
    assert "--from is 2026-01-02, after --to, 2026-01-01." in output


@pytest.mark.parametrize("option", ["--from", "--to"])
def test_what_is_no_day_is_refused_with_an_example(option: str) -> None:
    code, output = invoke("refresh", "--from", "2026-01-02", option, "01.02.2025")
    assert code == 2
    assert "'01.02.2025' is no day: write it as 2026-01-31." in output


@pytest.mark.parametrize("command", ["dashboard", "api"])
def test_an_empty_host_is_refused(command: str) -> None:
    code, output = invoke(command, "--host", "")
    assert code == 2
    assert "--host is empty" in output


def test_in_a_terminal_a_bar_moves_with_every_asset(home: Home) -> None:
    reading, terminal = os.openpty()
    process = subprocess.Popen(
        [TOTESYS, "refresh", "--full"], env=home.env, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    with suppress(OSError):  # what Linux says at the end of a terminal
        while part := os.read(reading, 65_536):
            shown += part
    os.close(reading)
    assert process.wait(60) == 0
    assert len({*re.findall(rb"(\d+)/52\b", shown)}) > 10


@pytest.mark.parametrize("option", ["--full", "--adopt-lake"])
def test_what_covers_all_days_is_refused_with_some_of_them(option: str) -> None:
    code, output = invoke("refresh", option, "--from", "2026-01-01")
    assert code == 2
    assert f"{option} always covers all days: leave out --from and --to" in output


def test_a_narrow_terminal_shows_the_numbers_beside_what_is_done() -> None:
    terminal = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with progress_bar(
        terminal, "2 of 6, 25 assets, 2024-11-27 to 2025-06-30 · warehouse/mart_exchange_rate_by_day", 25
    ):
        pass
    assert re.search(r"2025-06-30 · ware\w*… ━* +0/25 0:00:00", terminal.file.getvalue())  # type: ignore[attr-defined]


def test_sql_looks_into_the_warehouse(home: Home) -> None:
    result = home.run("sql", "SELECT count(*) AS orders FROM current_sales_order")
    assert result.returncode == 0, result.stderr
    assert re.search(r"orders\s+-+\s+2\d\d", result.stdout)
    assert home.run("sql", "SELECT nonsense").returncode != 0
    question = home.run("ask", "currencies", "--sql").stdout
    assert question.startswith("--")
    for given in ([question], ["--", question]):  # a comment is no option
        assert "GBP" in home.run("sql", *given).stdout
    assert "No such option" in home.run("sql", "--nonsense").stderr


def test_passwords_appear_in_no_output_no_log_and_no_run(home: Home) -> None:
    passwords = [server.url("x").split(":")[2].split("@")[0] for server in _started(home)]
    assert all(len(password) > 20 for password in passwords)
    home.run("status")
    texts = [*home.printed]
    texts += [path.read_text(errors="replace") for path in (home.folder / "dagster").rglob("*") if path.is_file()]
    with _dagster_database(home) as connection:
        for table in ("runs", "run_tags", "event_logs", "asset_keys", "kvs"):
            texts += [str(row) for row in connection.execute(f"SELECT * FROM {table}".encode())]
    assert not [text for text in texts for password in passwords if password in text]


def _started(home: Home) -> list[EmbeddedServer]:
    servers = home.servers()
    for server in servers:
        if not server.running():
            server.start()
    return servers


def _dagster_database(home: Home) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(_started(home)[1].url("dagster"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def read_until(process: subprocess.Popen[str], pattern: str, seconds: float) -> str:
    """What the process prints until ``pattern`` appears."""
    assert process.stdout is not None
    deadline, text = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        text += line
        if re.search(pattern, line):
            return text
        if not line and process.poll() is not None:
            break
    pytest.fail(f"{pattern!r} was not printed in {seconds} s:\n{text}")


SHOWN = r"sales, money and history are at (http://127\.0\.0\.1:\d+)"


def test_up_runs_everything_live_and_one_ctrl_c_stops_all_of_it(home: Home) -> None:
    port = free_port()
    process = home.start("up", "--port", str(port), "--dashboard-port", str(free_port()), "--rate", "1")
    try:
        text = read_until(process, "Ctrl-C stops everything", 120)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=10) as answer:
            assert json.load(answer)["dagster_version"]
            assert answer.headers["X-Frame-Options"] == "DENY", "the webserver is the guarded one"
        second = home.run("up", "--port", str(free_port()))
        assert second.returncode == 1
        assert "totesys up is already running on" in second.stderr.replace("\n", " ")
        text += read_until(process, "warehouse loaded .*fact_", 180)
        if not re.search(SHOWN, text):
            text += read_until(process, SHOWN, 60)
        (address,) = re.findall(SHOWN, text)
        with urllib.request.urlopen(address + dashboard.HEALTH, timeout=10) as answer:
            assert answer.read() == b"ok"
        beside = home.run("dashboard", "--port", address.rpartition(":")[2])
        if sys.platform == "linux":  # others tell only the superuser
            assert f"in use by totesys up of {home.folder}. Open {address}," in beside.stderr.replace("\n", " ")
        followed = json.loads(home.run("status", "--json").stdout)["log"]
        assert (followed["reason"], followed["kept_bytes"] is None) == (None, False), "the log is followed"
        assert "totesys " in text  # what the simulator did is told too
        secrets = [server.url("x").split(":")[2].split("@")[0] for server in home.servers()]
        assert not [command for command in home.processes() for secret in secrets if secret in command]
    finally:
        os.kill(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    assert output.index("stopping") < output.index("everything has stopped")
    assert home.processes() == []
    assert not any(server.running() for server in home.servers())


@pytest.mark.thorough
def test_up_that_is_killed_leaves_nothing_behind(home: Home) -> None:
    process = home.start("up", "--port", str(free_port()), "--rate", "1")
    read_until(process, "Ctrl-C stops everything", 120)
    assert len(home.processes()) > 4
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while (left := home.processes()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
    assert not any(server.running() for server in home.servers())


def test_of_ctrl_c_in_a_run_none_of_its_programs_says_anything(home: Home) -> None:
    process = home.start("refresh", "--full")
    while sum("watch_orphans" in each for each in home.processes()) < 2:  # of standard output and of errors
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    time.sleep(0.2)  # until they have started
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    text, _ = process.communicate(timeout=30)
    assert text == "✗ Stopped before the end. Nothing is left half done: run it again.\n"
    assert process.returncode == 130
    assert home.run("refresh").returncode == 0


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(8))
def test_a_first_refresh_interrupted_again_and_again_is_completed_by_the_next(seed: int, scratch: Path) -> None:
    chosen, home = random.Random(seed), Home(scratch / f"interrupted_{seed}")
    for _ in range(3):
        after, twice = chosen.uniform(0.05, 6), chosen.random() < 0.3
        kind = chosen.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        process = home.start("refresh", "--scale", "0.02")
        time.sleep(after)
        os.killpg(process.pid, kind)  # as a terminal does
        if twice:
            time.sleep(chosen.uniform(0, 0.3))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, kind)
        text, _ = process.communicate(timeout=30)
        told = f"{kind.name} after {after:.2f} s{', twice' if twice else ''}: {text}"
        assert "/totesys_assets/" not in text, told  # nor in a traceback of Python's own start
        assert "unexpected" not in text, told
        assert process.returncode in (0, -kind, 128 + kind), told
        deadline = time.monotonic() + 30  # a server whose commands were ended by force stops within seconds
        while home.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert home.processes() == [], told
    for command in ("refresh", "--scale", "0.02"), ("audit",):
        ended = home.run(*command)
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_dagster_is_not_imported_where_a_server_was_started_anew_and_nothing_else_happened(home: Home) -> None:
    home.run("refresh")  # what other tests left
    assert imports_none_of(home, "dagster")


@pytest.mark.parametrize("option", ["up --port", "up --dashboard-port", "dashboard --port"])
def test_a_port_in_use_is_said_before_anything_is_started(home: Home, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        others = ["--port", str(free_port())] if option == "up --dashboard-port" else []  # 3000 may be in use, too
        result = home.run(*option.split(), str(port), *others)
    assert result.returncode == 1
    said = result.stderr.replace("\n", " ")
    who = r"another program(, python\S* \(\d+\))?"
    assert re.search(rf"Port {port} is in use by {who}\. Choose another: totesys {option} {port + 1}\.", said)


@pytest.mark.parametrize("command", ["refresh", "status", "migrate", "simulate", "sql", "up"])
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output
    assert command in CliRunner().invoke(main, ["--help"]).output


@pytest.mark.pure
def test_the_list_of_commands_cuts_no_summary_short_on_80_columns() -> None:
    listed = CliRunner().invoke(main, ["--help"], terminal_width=80).output.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == sorted(main.commands)  # none goes over two lines either
    assert [line for line in listed if line.endswith("...")] == []


def sentence(result: object) -> str:
    """All that was said, on one line."""
    return " ".join(str(getattr(result, "output", "")).split())


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, sentence(result)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TOTESYS_URL", "not a url", "TOTESYS_URL is not a PostgreSQL URL"),
        ("TOTESYS_URL", "postgresql://u:hush@127.0.0.1:1/x", "TOTESYS_URL cannot be reached"),
        ("WAREHOUSE_URL", "postgresql://u:hush@127.0.0.1:1/x", "WAREHOUSE_URL cannot be reached"),
        ("TOTESYS_FIRST_DAY", "yesterday", "TOTESYS_FIRST_DAY is 'yesterday'"),
        ("LAKE_URI", "gs://bucket", "LAKE_URI is 'gs://bucket'"),
    ],
)
def test_a_wrong_setting_is_answered_with_one_sentence_and_no_password(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    code, text = invoke("refresh")
    assert code == 1
    assert said in text
    assert "hush" not in text
    assert "Traceback" not in text


def test_another_database_is_recognised(
    platform: Platform, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE customers (id int)")
    monkeypatch.setenv("TOTESYS_URL", url)
    code, text = invoke("refresh")
    assert code == 1
    assert (
        'which has no table "address" in schema "public" (found: "customers"). Set TOTESYS_URL to the ToteSys' in text
    )
    assert text.count("which has no table") == text.count("(And 10 more tables.)") == 1


@pytest.mark.refreshed
@pytest.mark.parametrize(
    ("drift", "code_then"),
    [("", 0), ("ALTER TABLE design RENAME COLUMN file_name TO file", 1)],
    ids=["", "but a problem"],
)
def test_a_refresh_that_finds_nothing_changed_brings_the_warehouse_of_an_older_version_up_to_date(
    platform: Platform, drift: str, code_then: int
) -> None:
    assert invoke("refresh")[0] == 0
    held = platform.query("SELECT * FROM current_payment")
    with psycopg.connect(platform.warehouse_url) as connection:
        connection.execute("DROP VIEW current_payment CASCADE; UPDATE _migration SET digest = 'of an older version'")
    if drift:
        platform.sql(drift)
    code, text = invoke("refresh")
    assert (code, "Nothing changed" in text) == (code_then, not drift), text
    assert platform.query("SELECT * FROM current_payment") == held


@pytest.mark.refreshed
def test_a_table_that_drifted_is_named_the_rest_is_refreshed_and_the_exit_code_is_1(platform: Platform) -> None:
    platform.sql("UPDATE sales_order SET units_sold = 7")
    platform.sql("ALTER TABLE design ADD COLUMN colour text NOT NULL DEFAULT 'red'")
    code, text = invoke("refresh")
    assert code == 1
    assert '"colour" (text) is new' in text
    with dg.DagsterInstance.get() as instance:
        assert list(blocked.blocked(instance, catalogue().source)) == ["design"]
    assert platform.query("SELECT units_sold FROM current_sales_order") == [(7,)]


@pytest.mark.refreshed
@pytest.mark.parametrize("backfill", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_a_refresh_that_does_not_see_to_everything_makes_nothing_up_to_date(platform: Platform, backfill: bool) -> None:
    platform.sql("UPDATE design SET file_name = 'w'")
    assert invoke("refresh")[0] == 0
    before = json.loads(CliRunner().invoke(main, ["status", "--json"]).stdout)["up_to_date_at"]
    assert before
    platform.sql("ALTER TABLE staff ALTER COLUMN email_address TYPE varchar(99)")
    platform.sql("UPDATE design SET file_name = 'x'")
    if backfill:
        today = str(datetime.now(UTC).date())
        assert invoke("refresh", "--from", today, "--to", today)[0] == 0
    else:
        assert invoke("refresh")[0] == 1
    document = json.loads(CliRunner().invoke(main, ["status", "--json"]).stdout)
    assert document["up_to_date_at"] <= before


@pytest.mark.refreshed
def test_a_column_that_is_left_out_is_told_by_the_refresh_too(platform: Platform) -> None:
    platform.sql("ALTER TABLE design ADD note text")
    platform.sql("UPDATE design SET note = 'x'")
    code, text = invoke("refresh")
    told = '"note" of table "design" is left out: the catalogue does not know it. Add it to catalogue/totesys.sql'
    assert code == 0, text
    assert told in text
    assert told in invoke("status")[1]


def test_dead_letters_of_a_table_that_there_is_not_are_refused(platform: Platform) -> None:
    code, text = invoke("dead-letters", "--table", "sales_orders")
    assert code == 1
    assert 'No source has a table "sales_orders". There are: address' in text


@pytest.mark.refreshed
def test_the_loss_of_most_rows_must_be_confirmed(platform: Platform) -> None:
    platform.sql(
        "INSERT INTO design SELECT n, '2024-08-19', 'Cotton', '/lib', 'x.json', '2024-08-19' "
        "FROM generate_series(2, 60) AS n"
    )
    platform.refresh()
    platform.sql("DELETE FROM design WHERE design_id > 1")
    code, text = invoke("refresh")
    assert code == 1
    assert '"design" had 60 rows and now has 1' in text
    assert platform.query("SELECT count(*) FROM dim_design WHERE _is_deleted") == [(0,)]
    assert "Next: resolve the problems above" in text
    document = json.loads(CliRunner().invoke(main, ["status", "--json"]).output)
    assert '"design" had 60 rows and now has 1' in document["last_failure"]["problem"]
    assert document["last_failure"]["run_id"]
    since = "(Since then, a look found everything up to date.)"
    assert since not in invoke("status")[1]
    code, text = invoke("refresh", "--accept-deletions")
    assert code == 0, text
    assert since in invoke("status")[1]
    assert platform.query("SELECT count(*) FROM dim_design WHERE _is_deleted") == [(59,)]


def test_the_simulator_does_not_write_into_a_totesys_that_is_someone_elses(platform: Platform) -> None:
    code, text = invoke("simulate")
    assert code == 1
    assert "the simulator would write into that database" in text


def test_the_simulator_fills_an_empty_database_that_is_meant_for_it(
    platform: Platform, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOTESYS_URL", postgres_server.database())
    options = ["--into-totesys-url", "--create", "--scale", "0.01", "--events", "2", "--seed", "1"]
    code, text = invoke("simulate", *options)
    assert code == 0, text
    assert "made 11 tables" in text
    code, text = invoke("simulate", *options)
    assert code == 1
    assert "already" in text


@pytest.mark.refreshed
def test_dead_letters_are_shown_in_the_status(platform: Platform) -> None:
    platform.sql("UPDATE sales_order SET agreed_delivery_date = 'soon'")
    code, text = invoke("refresh")
    assert code == 0
    assert f"! 1 dead letter, 1 new: {program()} dead-letters shows what to correct" in text
    document = json.loads(CliRunner().invoke(main, ["refresh", "--json"]).stdout)
    assert (document["changed"], document["dead_letters"]) == (False, {"new": 0, "open": 1})
    code, text = invoke("status")
    assert "1 dead letter, kept until corrected in the source" in text
    assert "totesys dead-letters" in text
    code, text = invoke("dead-letters")
    assert "sales_order 1 of 2024-08-20: agreed_delivery_date is not a date of the form YYYY-MM-DD" in text
