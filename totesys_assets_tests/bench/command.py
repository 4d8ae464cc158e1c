"""The command ``python -m totesys_assets_tests.bench``, which ``make bench`` and ``make guard`` start.

Belongs here: options, the tables that are printed. Does not belong here: measuring and drawing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.table import Table as Grid

from totesys_assets import stages
from totesys_assets.commands.edge import Edge
from totesys_assets.errors import PlatformError
from totesys_assets.local.locks import only_one
from totesys_assets.settings import Settings
from totesys_assets.terminal import err, out, reporter, say
from totesys_assets_tests.bench import answers, chart, latency
from totesys_assets_tests.bench.competitors import peers as tools
from totesys_assets_tests.bench.report import GUARD_TOLERANCE, document, machine, worse
from totesys_assets_tests.bench.rounds import Rounds, Run
from totesys_assets_tests.bench.sandbox import SCALES, Scale, sandbox
from totesys_assets_tests.bench.scenarios import LATENCY, NAMES, QUESTIONS, SCENARIOS

MB = 1_000_000
GROUPS = {"totesys": "capture", "star": "build", "mart": "marts", "warehouse": "load", "dagster": "dagster"}
_FILE = click.Path(dir_okay=False, path_type=Path)


# A group for the sake of Edge, which turns errors into sentences; it has no commands below it.
@click.group(cls=Edge, invoke_without_command=True, subcommand_metavar="")
@click.option("--scale", "scales", multiple=True, default=["S"], show_default=True, help="S, M, L or a number.")
@click.option("--scenario", "names", multiple=True, help="One of them only; may be given several times.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="How often; above M once.")
@click.option("--samples", type=click.IntRange(min=1), default=20, show_default=True, help="Orders for the latency.")
@click.option("--log", "follows_log", is_flag=True, help="Follow the log of ToteSys instead of comparing.")
@click.option("--json", "json_file", type=_FILE, help="Write everything that was measured into this file.")
@click.option("--svg", "svg_file", type=_FILE, help="Draw a chart into this file; needs --peers.")
@click.option(
    "--peers",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Environment of dlt, sling and matplotlib.",
)
@click.option("--home", type=click.Path(file_okay=False, path_type=Path), help="Keep data there, and use them again.")
@click.option("--guard", type=click.Path(dir_okay=False, exists=True, path_type=Path), help="Compare with this bench.")
def bench(
    scales: tuple[str, ...],
    names: tuple[str, ...],
    rounds: int,
    samples: int,
    follows_log: bool,
    json_file: Path | None,
    svg_file: Path | None,
    peers: Path | None,
    home: Path | None,
    guard: Path | None,
) -> None:
    """Measure how fast it is, on databases of its own, each scenario as the whole process that a user starts.

    Scale S is the real size, M has a million sales orders, L ten million. Scenarios: full, nothing, one-order,
    one-percent, backfill-day, backfill-month, backfill-all; up to scale S, latency; and questions, what each of
    them costs in a warm session. Beside them runs the yardstick: the same tables through COPY and a pipe, without any
    history.

    --guard FILE compares the ratios to the yardstick, and to --peers, with those in FILE, which --json has written;
    exit code 1 if one is worse by more than a quarter. Latency and questions, which have no ratio, are then left
    out.
    """
    for file in (json_file, svg_file):
        if file is not None and not file.absolute().parent.is_dir():
            raise click.UsageError(f"There is no folder {file.parent} to write {file.name} into.")
    if svg_file is not None and peers is None:
        raise click.UsageError("--svg needs --peers: matplotlib, which draws the chart, is in that environment.")
    stored = _stored(guard)
    wanted = _scales(scales)
    _check_names(names)
    if stored is not None and not names:
        names = tuple(_titles())  # all that has a ratio
    with _home(home) as folder, only_one(folder / "bench.lock", "the bench"):
        measured = _measured(folder, wanted, names, rounds, samples, peers, follows_log=follows_log)
    _print(measured)
    if json_file is not None:
        json_file.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    if svg_file is not None and peers is not None:
        drawn = _drawn(measured, peers)
        svg_file.write_text(drawn, encoding="utf-8")
    if stored is not None:
        _guard(measured, stored)
    if measured["failed"]:
        sys.exit(1)


def _stored(guard: Path | None) -> dict[str, Any] | None:
    """The bench to compare with, read before hours are spent on measuring."""
    if guard is None:
        return None
    try:
        stored: dict[str, Any] = json.loads(guard.read_text(encoding="utf-8"))
        stored["figures"]
    except (ValueError, KeyError, TypeError) as error:
        raise PlatformError(f"{guard} is not a document that the bench has written with --json.") from error
    return stored


def _scales(names: tuple[str, ...]) -> list[Scale]:
    try:
        return [Scale.named(name) for name in dict.fromkeys(names)]
    except ValueError:
        raise click.UsageError("--scale is S, M, L or a number above 0.") from None


def _check_names(names: tuple[str, ...]) -> None:
    if unknown := [name for name in names if name not in NAMES]:
        raise click.UsageError(f"There is no scenario {unknown[0]}: choose from {', '.join(NAMES)}.")


@contextmanager
def _home(given: Path | None) -> Iterator[Path]:
    """The folder for all data: the one given, which stays, or a new one beside the platform's own, which goes."""
    if given is not None:
        yield given.absolute()
        return
    parent = Settings.from_env().home
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=parent))
    folder.chmod(0o711)  # as root, the servers run as another user, who must pass through
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measured(
    home: Path,
    scales: list[Scale],
    names: tuple[str, ...],
    rounds: int,
    samples: int,
    peers: Path | None,
    *,
    follows_log: bool,
) -> dict[str, Any]:
    say, where = reporter(err), machine()
    chosen = [scenario for scenario in SCENARIOS if not names or scenario.name in names]
    runs: list[Run] = []
    latencies: list[latency.Latency] = []
    asked: list[answers.Answers] = []
    absent: dict[str, str] = {}
    failed: list[str] = []
    orders: dict[str, int] = {}
    postgres = ""
    for scale in scales:
        with sandbox(home / scale.name, scale, say, follows_log=follows_log) as prepared:
            postgres, orders[scale.name] = prepared.postgres(), prepared.rows()["sales_order"]
            turns = Rounds(prepared, say, tools(peers) if peers else (), runs, absent)
            try:
                if scale.factor <= SCALES["M"]:
                    turns.measure(chosen, rounds)
                else:
                    turns.measure([each for each in chosen if not each.is_long], 1)
                if not names or QUESTIONS in names:
                    if not chosen:
                        turns.load()
                    asked.append(answers.measure(prepared, say))
                if LATENCY in names or (not names and scale.factor <= 1):
                    latencies.append(latency.measure(prepared, samples, say))
            except PlatformError as error:  # what was measured until then is worth keeping
                failed.append(f"Scale {scale.name}: {error}")
    return document(runs, latencies, absent, failed, where, orders, postgres, asked, follows_log=follows_log)


def _drawn(measured: dict[str, Any], peers: Path) -> str:
    """The chart as SVG, drawn by the Python of the peers' environment, which has matplotlib."""
    program = [str(peers.absolute() / "bin" / "python"), chart.__file__]
    done = subprocess.run(program, input=json.dumps([measured, _titles()]), capture_output=True, text=True, check=False)
    if done.returncode:
        raise PlatformError(f"The chart was not drawn: {done.stderr[-500:]}")
    return done.stdout


def _titles() -> dict[str, str]:
    return {scenario.name: scenario.title for scenario in SCENARIOS}


def _print(measured: dict[str, Any]) -> None:
    titles = _titles()
    for scale, orders in measured["sales_orders"].items():
        found = [each for each in measured["figures"] if each["scale"] == scale]
        if found:
            out.print()
            say(out, f"[bold]Scale {scale}[/bold]: ", f"{orders:,} sales orders")
            out.print(_costs(found, titles, measured["memory_is"]))
            ours = [each for each in found if each["tool"] == "totesys"]
            out.print("", _stages(ours, titles), "", _work(ours, titles))
    if measured["questions"]:
        out.print("", _answers(measured["questions"]))
    for each in measured["latency"]:
        say(
            out,
            "",
            f"Commit to warehouse under totesys up, scale {each['scale']}: median {each['p50']:.2f} s, "
            f"95 % within {each['p95']:.2f} s ({each['samples']} orders, {each['least']:.2f} to {each['most']:.2f} s).",
        )
        if lake := each["in_the_lake"]:
            say(out, "", f"Commit to the lake's journal: median {lake['p50']:.2f} s, 95 % within {lake['p95']:.2f} s.")
    for tool, reason in measured["absent"].items():
        say(out, "[yellow]![/yellow] ", f"{tool} was not measured: {reason}")
    for failure in measured["failed"]:
        say(out, "[red]✗[/red] ", failure)
    load = measured["machine"]["load_average"][0]
    if load > measured["machine"]["cores"]:
        busy = f"The machine was busy at the start (load {load}): measure again when it is not."
        say(out, "[yellow]![/yellow] ", busy)


def _costs(found: list[dict[str, Any]], titles: dict[str, str], memory: str) -> Grid:
    heads = ("", "seconds", "× COPY", "CPU s", "servers", "× COPY", f"MB {memory}", "disk MB")  # fits 80 columns
    grid = _grid(*heads)
    first = found[0]["scenario"]
    for each in sorted(found, key=lambda each: ([*titles].index(each["scenario"]), each["tool"] != "totesys")):
        if each["tool"] != "totesys" and each["scenario"] != first:
            continue  # the yardstick once; what it took beside the others is in the JSON
        title = titles[each["scenario"]]
        grid.add_row(
            title if each["tool"] == "totesys" else f"  {each['tool']}",
            f"{each['seconds']:,.2f}",
            f"{each['ratios']['copy']:.2f}" if "copy" in each["ratios"] else "",
            f"{each['client_cpu_seconds']:,.1f}",
            f"{each['server_cpu_seconds']:,.1f}",
            f"{each['cpu_ratios']['copy']:.2f}" if "copy" in each["cpu_ratios"] else "",
            f"{each['peak_memory_bytes'] / MB:,.0f}",
            f"{(each['lake_bytes'] + each['database_bytes']) / MB:,.1f}",
        )
    return grid


def _stages(ours: list[dict[str, Any]], titles: dict[str, str]) -> Grid:
    grid = _grid("seconds of ours", "start", *GROUPS.values(), "run", "rest", "events")
    for each in ours:
        grid.add_row(
            titles[each["scenario"]],
            f"{each['seconds'] - each['inside']:.2f}",
            *(f"{each['stages'].get(group, 0.0):.2f}" for group in GROUPS),
            f"{each['in_the_run']:.2f}",
            f"{each['inside'] - each['in_the_run']:.2f}",
            f"{each['dagster_events']:,}",
        )
    return grid


def _work(ours: list[dict[str, Any]], titles: dict[str, str]) -> Grid:
    grid = _grid("seconds of threads", *stages.NAMES)
    for each in ours:
        grid.add_row(titles[each["scenario"]], *(f"{each['work'].get(name, 0.0):.2f}" for name in stages.NAMES))
    return grid


def _answers(asked: list[dict[str, Any]]) -> Grid:
    grid = _grid("milliseconds until the answer", *(f"scale {each['scale']}" for each in asked))
    for name in asked[0]["milliseconds"]:
        grid.add_row(name, *(f"{each['milliseconds'][name]:,.1f}" for each in asked))
    return grid


def _grid(first: str, *heads: str) -> Grid:
    grid = Grid(box=None, header_style="bold underline", padding=(0, 1, 0, 0))
    grid.add_column(first, no_wrap=True)
    for head in heads:
        grid.add_column(head, justify="right", no_wrap=True)
    return grid


def _guard(measured: dict[str, Any], stored: dict[str, Any]) -> None:
    complaints = worse(measured, stored)
    for complaint in complaints:
        say(out, "[red]✗[/red] ", complaint)
    if complaints:
        sys.exit(1)
    say(out, "[green]✓[/green] ", f"No ratio is worse than the stored one by more than {GUARD_TOLERANCE:.0%}.")
