"""The bench: what it measures, what it makes of it, and what it says when something is missing. Nothing is timed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psycopg
import pytest
from click.testing import CliRunner

from totesys_assets.databases import TOTESYS, Databases
from totesys_assets.errors import PlatformError
from totesys_assets.insights.questions import Answer, answer, questions
from totesys_assets.insights.reading import Reader
from totesys_assets.local import simulator
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.bench import answers, chart, command, competitors, latency
from totesys_assets_tests.bench.answers import Answers
from totesys_assets_tests.bench.chart import COLOURS
from totesys_assets_tests.bench.command import bench
from totesys_assets_tests.bench.latency import Latency
from totesys_assets_tests.bench.meter import Meter, Program, ProgramFailed, memory_of_tree
from totesys_assets_tests.bench.report import document, figures, machine, percentile, worse
from totesys_assets_tests.bench.rounds import Rounds, Run
from totesys_assets_tests.bench.sandbox import Sandbox, Scale
from totesys_assets_tests.bench.scenarios import SCENARIOS
from totesys_assets_tests.conftest import PostgresServer

TITLES = {scenario.name: scenario.title for scenario in SCENARIOS}
SALES, PURCHASES, DESIGNS, REFERENCE = 112, 46, 47, 85
EVENTS = SALES + PURCHASES
PEERS = Path(__file__).parents[2] / ".venv-bench"
SVG = "{http://www.w3.org/2000/svg}"


def python(code: str) -> Program:
    return Program([sys.executable, "-c", code], dict(os.environ))


def a_run(**changes: Any) -> Run:
    run = Run("S", "full", "totesys", 0, 1000, 10.0, 8.0, 1.0, 200, 30, 40, 2.0, 500, 9.0, 4.0, {"totesys": 4.0})
    return replace(run, **changes)


def rounds_of(tool: str, *seconds: float, scenario: str = "full", yardstick: float | None = 2.0) -> list[Run]:
    return [
        a_run(tool=tool, scenario=scenario, round=number, seconds=each, yardstick_seconds=yardstick)
        for number, each in enumerate(seconds)
    ]


def a_document(*runs: Run, latencies: tuple[Latency, ...] = ()) -> dict[str, Any]:
    return document(runs, latencies, {}, [], machine(), {"S": 11_180}, "18.6")


# --- A whole bench, as a user starts it ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def benched(scratch: Path) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A bench of three scenarios on a week of trade that --home holds from before, with one peer that fails."""
    folder = scratch / "bench"
    server = EmbeddedServer(folder / "0.01" / "postgres" / TOTESYS, {"fsync": "off"})
    server.start()
    server.create_database(TOTESYS)
    simulator.create(server.url(TOTESYS), scale=0.01, days=7)
    server.stop()
    packages = folder / "peers" / "lib" / "python3.11" / "site-packages"
    program = packages / "sling_somewhere" / "bin" / "sling-somewhere"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 'no way in' >&2; exit 3\n")
    program.chmod(0o755)
    chosen = [part for name in ("full", "nothing", "one-percent") for part in ("--scenario", name)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "totesys_assets_tests.bench", "--scale", "0.01", "--rounds", "1", *chosen),
            *("--json", str(folder / "bench.json"), "--home", str(folder), "--peers", str(folder / "peers")),
        ],
        env={**os.environ, "COLUMNS": "80", "TOTESYS_URL": "postgresql://not.used/x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done, folder


@pytest.mark.thorough
def test_a_bench_prints_tables_that_fit_eighty_columns(
    benched: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    printed = benched[0].stdout
    assert "Scale 0.01: 112 sales orders" in printed
    for text in ("full load", "nothing changed", "1 % changed", "copy", "× COPY", "capture", "rest", "extract"):
        assert text in printed
    tables = [line for line in printed.splitlines() if "was not measured" not in line]
    assert max(map(len, tables)) <= 80
    assert "…" not in printed


@pytest.mark.thorough
def test_a_bench_counts_the_rows_that_each_scenario_concerns(
    benched: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    measured = json.loads((benched[1] / "bench.json").read_text())
    rows = {(each["scenario"], each["tool"]): each["rows"] for each in measured["figures"]}
    everything = 3 * EVENTS + DESIGNS + REFERENCE
    every_hundredth = SALES // 100 + PURCHASES // 100 + EVENTS // 100
    assert rows == {
        ("full", "copy"): everything,
        ("full", "totesys"): everything,
        ("nothing", "copy"): everything,
        ("nothing", "totesys"): 0,
        ("one-percent", "copy"): everything,
        ("one-percent", "totesys"): every_hundredth,
    }


@pytest.mark.thorough
def test_a_bench_notes_what_every_run_cost_and_all_its_stages(
    benched: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    measured = json.loads((benched[1] / "bench.json").read_text())
    full, nothing, changed = (run for run in measured["runs"] if run["tool"] == "totesys")
    for run in (full, changed):
        assert run["stages"].keys() >= {"totesys", "star", "mart", "warehouse", "dagster"}
    assert nothing["stages"] == {}
    assert nothing["dagster_events"] == nothing["lake_bytes"] == 0
    for run in (full, changed):
        assert run["stages"]["totesys"] < run["in_the_run"] < run["inside"] < run["seconds"]
        assert run["dagster_events"] > 20
        assert run["lake_bytes"] > 10_000
    for run in (full, nothing, changed):
        assert run["client_cpu_seconds"] > 0.5
        assert run["server_cpu_seconds"] > 0
        assert 50_000_000 < run["peak_memory_bytes"] < 5_000_000_000
        assert run["yardstick_seconds"] > 0
    assert measured["machine"]["cores"] == os.cpu_count()
    assert set(measured["versions"]) >= {"python", "dagster", "duckdb", "deltalake", "postgresql"}
    assert measured["failed"] == measured["latency"] == measured["questions"] == []


@pytest.mark.thorough
def test_a_peer_that_is_missing_or_fails_is_named_and_stops_nothing(
    benched: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    absent = json.loads((benched[1] / "bench.json").read_text())["absent"]
    assert absent["dlt"].startswith("dlt, connectorx, adbc_driver_postgresql not found in ")
    assert absent["sling"].endswith("sling-somewhere ended with code 3:\nno way in")
    assert "sling was not measured: at scale 0.01" in benched[0].stdout


@pytest.mark.thorough
def test_a_bench_leaves_no_server_and_no_password_behind(
    benched: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, folder = benched
    servers = [EmbeddedServer(folder / "0.01" / "postgres" / name) for name in ("totesys", "warehouse")]
    assert not any(server.running() for server in servers)
    passwords = [(folder / "0.01" / "postgres" / name / "password").read_text() for name in ("totesys", "warehouse")]
    texts = [done.stdout, done.stderr, (folder / "bench.json").read_text()]
    assert not [text for text in texts for password in passwords if password in text]


# --- What is wrong is said before anything is measured ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scale", "huge"], "--scale is S, M, L or a number above 0"),
        (["--scale", "-1"], "--scale is S, M, L or a number above 0"),
        (["--scenario", "nonsense"], "choose from full, nothing"),
        (["--json", "no/such/folder/x.json"], "There is no folder no/such/folder"),
        (["--svg", "x.svg"], "--svg needs --peers"),
        (["--guard", __file__], "is not a document that the bench has written with --json"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(bench, arguments, env={"COLUMNS": "300"})
    assert result.exit_code in (1, 2)
    assert said in " ".join(result.output.split())  # a long path may have wrapped it


def test_scales_have_names_or_are_numbers() -> None:
    assert [Scale.named(name).sales_orders for name in ("s", "0.05")] == [11_180, 559]
    assert [round(Scale.named(name).sales_orders, -5) for name in ("M", "L")] == [1_000_000, 10_000_000]


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Rounds], None]], None]:
    """Benches without databases: sets what measuring does instead."""

    class Stub:
        def postgres(self) -> str:
            return "18.6"

        def rows(self) -> dict[str, int]:
            return {"sales_order": 11_180}

    @contextmanager
    def sandbox(*_: object, follows_log: bool) -> Iterator[Stub]:
        yield Stub()

    def latency_of(*_: object) -> Latency:
        return Latency("S", [3.0, 4.0], 1, [0.4, 0.5])

    monkeypatch.setattr("totesys_assets_tests.bench.command.sandbox", sandbox)

    def answers_of(*_: object) -> Answers:
        return Answers("S", {"headline": 4.25, "known_on": 1234.5})

    monkeypatch.setattr(latency, "measure", latency_of)
    monkeypatch.setattr(answers, "measure", answers_of)
    return lambda instead: monkeypatch.setattr(Rounds, "measure", lambda self, *_: instead(self))


def test_what_was_measured_is_kept_when_a_refresh_fails(
    stubbed: Callable[[Callable[[Rounds], None]], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def measure(turns: Rounds) -> None:
        turns.runs.append(a_run())
        raise PlatformError("the lake is on fire")

    stubbed(measure)
    file = tmp_path / "kept.json"
    result = CliRunner().invoke(bench, ["--json", str(file), "--home", str(tmp_path)])
    assert result.exit_code == 1
    assert [run["seconds"] for run in json.loads(file.read_text())["runs"]] == [10.0]
    assert "Scale S: the lake is on fire" in capfd.readouterr().out + result.output


@pytest.mark.parametrize(("seconds", "code", "said"), [(12.5, 0, "No ratio is worse"), (20.0, 1, "full at S: 10.00")])
def test_a_guarded_bench_fails_when_a_ratio_is_worse(
    stubbed: Callable[[Callable[[Rounds], None]], None],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    seconds: float,
    code: int,
    said: str,
) -> None:
    stubbed(lambda turns: turns.runs.extend(rounds_of("totesys", seconds)))
    stored = tmp_path / "stored.json"
    stored.write_text(json.dumps(a_document(*rounds_of("totesys", 10.0))))
    result = CliRunner().invoke(bench, ["--guard", str(stored), "--home", str(tmp_path)])
    printed = capfd.readouterr().out + result.output
    assert result.exit_code == code
    assert said in printed
    assert "Commit to warehouse" not in printed


def test_the_latency_is_printed_with_its_samples_and_the_questions_with_their_cost(
    stubbed: Callable[[Callable[[Rounds], None]], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stubbed(lambda _: None)
    result = CliRunner().invoke(bench, ["--home", str(tmp_path)])
    printed = capfd.readouterr().out + result.output
    assert "median 3.00 s, 95 % within 4.00 s (2 orders" in printed
    assert "Commit to the lake's journal: median 0.40 s, 95 % within 0.50 s." in printed
    assert re.search(r"headline +4\.2", printed)
    assert re.search(r"known_on +1,234\.5", printed)


# --- Figures, guard, chart -------------------------------------------------------------------------------------------


def test_figures_are_medians_and_ratios() -> None:
    runs = [*rounds_of("copy", 2.0, 4.0, 9.0, yardstick=None), *rounds_of("totesys", 30.0, 10.0, 20.0)]
    copy, ours, dlt = figures([*runs, *rounds_of("dlt", 5.0, 4.0, 3.0)])
    assert (ours.seconds, ours.least_seconds, ours.most_seconds, ours.rounds) == (20.0, 10.0, 30.0, 3)
    assert ours.rows_per_second == 50.0
    assert ours.ratios == {"copy": 10.0, "dlt": 5.0}
    assert (copy.ratios, dlt.ratios) == ({}, {"copy": 2.0})
    assert (ours.cpu_ratios, copy.cpu_ratios) == ({"copy": 1.0, "dlt": 1.0}, {})


def test_ratios_of_processor_time_are_of_programs_and_servers_together() -> None:
    (copy,), (ours,) = rounds_of("copy", 2.0, yardstick=None), rounds_of("totesys", 30.0)
    (other,) = rounds_of("totesys", 8.0, scenario="nothing")
    copy = replace(copy, client_cpu_seconds=1.0, server_cpu_seconds=3.0)
    ours = replace(ours, client_cpu_seconds=10.0, server_cpu_seconds=8.0)
    other = replace(other, client_cpu_seconds=1.0, server_cpu_seconds=1.0)
    _, full, nothing = figures([copy, ours, other])
    assert (full.cpu_ratios, nothing.cpu_ratios) == ({"copy": 4.5}, {"copy": 0.5})


def test_the_guard_compares_processor_time_too() -> None:
    def bench(cpu: float) -> dict[str, Any]:
        (copy,), (ours,) = rounds_of("copy", 2.0, yardstick=None), rounds_of("totesys", 10.0)
        return a_document(replace(copy, client_cpu_seconds=1.0), replace(ours, client_cpu_seconds=cpu))

    assert worse(bench(5.0), bench(4.9)) == []
    (complaint,) = worse(bench(9.0), bench(5.0))
    assert re.match(r"full at S: \d\.\d\d times the processor time of copy, was ", complaint)


def test_percentiles_are_values_that_were_measured() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert (percentile(hundred, 50), percentile(hundred, 95)) == (50.0, 95.0)
    assert (percentile([7.0], 50), percentile([7.0], 95)) == (7.0, 7.0)


def test_the_guard_lets_a_quarter_pass_and_no_more() -> None:
    stored = a_document(*rounds_of("totesys", 10.0), *rounds_of("totesys", 8.0, scenario="nothing"))
    assert worse(a_document(*rounds_of("totesys", 12.5)), stored) == []
    assert worse(a_document(*rounds_of("totesys", 12.6)), stored) == ["full at S: 6.30 times as long as copy, was 5.00"]


def test_the_guard_compares_ratios_and_not_seconds() -> None:
    stored = a_document(*rounds_of("totesys", 10.0))
    assert worse(a_document(*rounds_of("totesys", 100.0, yardstick=20.0)), stored) == []


def test_a_guard_with_nothing_to_compare_complains() -> None:
    stored = a_document(*rounds_of("totesys", 10.0))
    (complaint,) = worse(a_document(*rounds_of("totesys", 1.0, scenario="nothing")), stored)
    assert "nothing to compare" in complaint


def bench_to_draw() -> dict[str, Any]:
    yardstick = rounds_of("copy", 2.0, yardstick=None)
    runs = [*yardstick, *rounds_of("totesys", 1200.0), *rounds_of("dlt", 600.0)]
    bench = a_document(*runs, latencies=(Latency("S", [3.0, 4.0, 9.0], 1),))
    bench["machine"]["cpu"] = "<fast> & cheap"
    return bench


def test_the_chart_shows_what_is_compared_then_ours_and_the_latency() -> None:
    assert list(chart.bars(bench_to_draw(), "S", TITLES)) == [
        ("COPY through a pipe", "copy", 2.0, ""),
        ("dlt", "dlt", 600.0, "300 × COPY"),
        ("full load", "totesys", 1200.0, "600 × COPY, 2 × dlt"),
        ("commit to warehouse, live", "totesys", 4.0, "median; 95 % within 9 s"),
    ]


@pytest.mark.skipif(not PEERS.exists(), reason=f"matplotlib is in {PEERS.name}, which make bench creates")
def test_the_chart_draws_the_longest_bar_longest_and_escapes_what_it_writes() -> None:
    drawn = ElementTree.fromstring(command._drawn(bench_to_draw(), PEERS))
    paths = {group.get("id"): group.find(f"{SVG}path") for group in drawn.iter(f"{SVG}g") if group.get("id") in COLOURS}
    widths = {tool: width_of(path.get("d", "")) for tool, path in paths.items() if tool and path is not None}
    assert widths["dlt"] == pytest.approx(300 * widths["copy"], rel=0.02)
    texts = [text.text or "" for text in drawn.iter(f"{SVG}text")]
    assert "1,200 s · 600 × COPY, 2 × dlt" in texts
    assert any("<fast> & cheap" in text for text in texts)


def width_of(path: str) -> float:
    """How wide a rectangle is that is drawn with absolute moves."""
    across = [float(number) for number in re.findall(r"[ML] ([\d.]+) ", path)]
    return max(across) - min(across)


def test_a_chart_that_cannot_be_drawn_is_an_error_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    with pytest.raises(PlatformError, match=r"(?s)not drawn: .*matplotlib"):
        command._drawn(bench_to_draw(), tmp_path)


def test_a_document_survives_json() -> None:
    bench = a_document(a_run(), latencies=(Latency("S", [3.0], 1),))
    assert json.loads(json.dumps(bench)) == bench
    assert bench["runs"] == [asdict(a_run())]


# --- The meter -------------------------------------------------------------------------------------------------------


def test_the_meter_hands_output_on_and_counts_processes_and_memory_of_children_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"

    def noted(pid: int) -> int:
        found = memory_of_tree(pid)
        if found > 60_000_000:  # the child ends once it was sampled
            seen.touch()
        return found

    monkeypatch.setattr(f"{Meter.__module__}.memory_of_tree", noted)
    child = f"import os, time; held = bytearray(60_000_000)\nwhile not os.path.exists({str(seen)!r}): time.sleep(0.01)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print('b\\na')"
    with Meter([os.getpid()]) as meter:
        assert meter.run(python(parent), python("import sys; print(*sorted(sys.stdin), sep='', end='')")) == "a\nb\n"
    assert meter.cost.peak_memory_bytes > 60_000_000
    assert meter.cost.seconds > 0
    assert meter.cost.client_cpu_seconds > 0


def test_the_meter_says_what_a_failed_program_said() -> None:
    with Meter() as meter, pytest.raises(ProgramFailed, match=r"(?s)ended with code 7:.*the reason"):
        meter.run(python("import sys; print('the reason', file=sys.stderr); sys.exit(7)"))


def test_an_interrupted_meter_leaves_no_program_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def interrupted(_: Meter, process: subprocess.Popen[bytes]) -> None:
        started.append(process.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(Meter, "_await", interrupted)
    with Meter() as meter, pytest.raises(KeyboardInterrupt):
        meter.run(python("import time; time.sleep(10)"))
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


# --- Yardstick and latency -------------------------------------------------------------------------------------------


@pytest.fixture
def small(postgres_server: PostgresServer, tmp_path: Path) -> Sandbox:
    """A sandbox of which source and warehouse are one: what is committed is visible at once."""
    url = postgres_server.database()
    simulator.create(url, scale=0.002, days=10)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE VIEW current_sales_order AS SELECT * FROM sales_order")
    return Sandbox(Scale("0.002", 0.002), tmp_path, Databases(url, url))


def test_the_yardstick_brings_all_rows_over_and_then_the_keys_with_no_password_on_a_command_line(
    small: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    run = Meter.run

    def noted(self: Meter, *pipeline: Program) -> str:
        lines.extend(" ".join(program.argv) for program in pipeline)
        return run(self, *pipeline)

    monkeypatch.setattr(Meter, "run", noted)
    target = small.target("bench_copy_test")
    with Meter(small.postmasters) as meter:
        competitors.CopyPipe().load(small, target, meter)
    competitors.check(competitors.CopyPipe(), target, small.rows())
    password = psycopg.conninfo.conninfo_to_dict(small.urls.totesys)["password"]
    assert not [line for line in lines if str(password) in line]
    with psycopg.connect(target) as connection:
        keys = connection.execute("SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'").fetchone()
        assert keys == (11,)
        connection.execute("DELETE FROM payment")
    with pytest.raises(PlatformError, match="copy left 0 rows in payment"):
        competitors.check(competitors.CopyPipe(), target, small.rows())
    small.drop("bench_copy_test")


def test_latency_is_measured_once_for_each_order_but_the_first(small: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def up(_: Sandbox) -> Iterator[subprocess.Popen[bytes]]:
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
            yield process
            latency._stop(process)

    monkeypatch.setattr(latency, "_up", up)
    monkeypatch.setattr(latency, "PAUSE_SECONDS", 0.0)
    before = small.rows()["sales_order"]
    told: list[str] = []
    measured = latency.measure(small, 3, told.append)
    assert len(measured.seconds) == len(told) == 3
    assert measured.in_the_lake == [], "nothing follows the log"
    assert measured.memory_bytes > 0
    assert small.rows()["sales_order"] == before + 4


def test_the_journal_has_moved_when_its_next_commit_is_there(small: Sandbox) -> None:
    log = small.home / "lake" / "journal" / "_delta_log"
    log.mkdir(parents=True)
    (log / f"{7:020}.json").touch()
    journal = latency.Journal(small)

    def moved_at() -> float | None:
        journal.look()
        return journal.moved_at

    assert moved_at() is None
    (log / f"{8:020}.json").touch()
    moved = moved_at()
    assert moved is not None
    assert moved_at() == moved < time.monotonic()


@pytest.mark.thorough
def test_every_question_is_timed_warm_and_the_first_answer_is_not_counted(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.database()
    Warehouse(url).migrate()
    asked: list[str] = []

    def answered(self: Reader, name: str, **parameters: object) -> Answer:
        asked.append(name)
        if asked.count(name) == 1:
            time.sleep(0.5)
        with self.session() as connection:
            return answer(connection, name, **parameters)

    monkeypatch.setattr(Reader, "answer", answered)
    told: list[str] = []
    measured = answers.measure(Sandbox(Scale("S", 1.0), tmp_path, Databases(url, url)), told.append)
    assert {name: asked.count(name) for name in asked} == dict.fromkeys(questions(), 1 + answers.REPEATS)
    assert measured.milliseconds.keys() == questions().keys()
    assert all(0 < each < 500 for each in measured.milliseconds.values())
    assert len(told) == len(questions())


def test_an_order_that_never_arrives_is_an_error(small: Sandbox) -> None:
    with (
        psycopg.connect(small.urls.warehouse) as connection,
        pytest.raises(PlatformError, match="Order 0 was not in the warehouse"),
    ):
        latency._await_visible(connection, 0, time.monotonic())


def test_a_platform_that_does_not_come_up_is_an_error_with_its_own_words(
    small: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sandbox, "command", lambda *_: python("print('no room left')"))
    with pytest.raises(PlatformError, match="no room left"), latency._up(small):
        pass
