"""The plan: its simulations keep their laws, agree with what was measured, and stand in docs/scaling.md as they are."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace

import pytest
import yaml
from click.testing import CliRunner

from totesys_assets.dagster_internals.executor import STEPS
from totesys_assets_tests.plan import page
from totesys_assets_tests.plan.__main__ import plan as command
from totesys_assets_tests.plan.constants import (
    DOCS,
    MILLION,
    PLACES,
    PLAN,
    Document,
    chosen,
    document,
    figures,
    middle,
    processors,
    value,
)
from totesys_assets_tests.plan.costs import costs
from totesys_assets_tests.plan.first_load import SIDE_BY_SIDE, Part, Resource, Step, simulate
from totesys_assets_tests.plan.plan import Inputs, Plan, longest_run
from totesys_assets_tests.plan.steady import Cycle, Delays, Saturated
from totesys_assets_tests.plan.steady import simulate as follow
from totesys_assets_tests.plan.work import Machines, on_aws, on_one_machine

pytestmark = pytest.mark.pure

# How far a prediction may be from what was measured: other versions of the platform, machines that others used.
FACTOR = 1.6
CYCLE = Cycle(look=0.2, fixed=2.0, per_change=1e-4, spread=0.1)
DATABASE = {"client": Resource(4, 1), "warehouse": Resource(4, 1)}


def load(table: str, seconds: float) -> list[Step]:
    return [Step("load", (Part("warehouse", seconds),), lock=table)]


def test_two_loads_of_one_table_follow_each_other_and_those_of_two_do_not() -> None:
    one = simulate([load("payment", 10), load("payment", 10)], DATABASE, at_once=2)
    assert (one.ended, one.waited) == ([10, 20], 10)
    two = simulate([load("payment", 10), load("sales_order", 10)], DATABASE, at_once=2)
    assert (two.ended, two.waited) == ([10, 10], 0)


def test_steps_share_what_there_is_and_all_work_is_done() -> None:
    runs = [load(str(number), 10) for number in range(8)]
    found = simulate(runs, DATABASE, at_once=8)
    assert found.seconds == pytest.approx(20)  # eight on four processors
    assert found.used["warehouse"] == pytest.approx(80)
    assert simulate(runs, DATABASE, at_once=2).seconds == pytest.approx(40)


def test_a_run_has_as_many_steps_under_way_as_the_executor() -> None:
    steps = [Step(str(number), (Part("client", 10),)) for number in range(SIDE_BY_SIDE + 1)]
    assert simulate([steps], DATABASE, at_once=1).seconds == pytest.approx(20)
    assert SIDE_BY_SIDE == STEPS


def test_a_step_is_as_fast_as_its_slowest_part_and_begins_after_others() -> None:
    first = Step("capture", (Part("client", 2), Part("warehouse", 6)))
    second = Step("build", (Part("client", 3),), frozenset({"capture"}))
    assert simulate([[second, first]], DATABASE, at_once=1).seconds == pytest.approx(9)


@pytest.mark.parametrize(("at_once", "index"), [(1, True), (2, True), (4, True), (2, False)])
def test_more_processors_are_never_slower(at_once: int, index: bool) -> None:
    def seconds(task: float, source: float, warehouse: float) -> float:
        return on_aws(4e9, 4e8, Machines(task, source, warehouse, at_once, index)).seconds

    grid = [*itertools.product((1, 2, 4), (1, 4), (1, 2, 8))]
    found = {each: seconds(*each) for each in grid}
    for less, more in itertools.permutations(grid, 2):
        if all(a <= b for a, b in zip(less, more, strict=True)):
            assert found[more] <= found[less] * 1.001, (less, more)


def test_more_ranges_at_once_are_faster_until_they_wait_for_each_others_tables() -> None:
    found = [on_aws(4e9, 1e8, Machines(4, 16, 16, at_once)) for at_once in (1, 2, 4, 8)]
    times = [each.seconds / found[0].seconds for each in found]
    assert times[:2] == pytest.approx([1, 1 / 2], rel=0.1)
    assert 1 / 4 < times[2] < times[1]
    assert times[3] == pytest.approx(times[2], rel=0.05)  # as many loads as there are tables
    assert [each.waited for each in found] == sorted(each.waited for each in found)


def test_without_an_index_on_created_at_every_range_scans_everything() -> None:
    indexed, scanning = (on_aws(4e9, 1e8, Machines(4, 8, 8, 2, index)) for index in (True, False))
    assert scanning.seconds > 2 * indexed.seconds
    assert scanning.used["source's disk"] == pytest.approx(40 * indexed.used["source's disk"])


@pytest.mark.parametrize("rate", [0.01, 1, 100, 1_000, 5_000, 9_000])
def test_no_change_arrives_before_one_refresh_is_over(rate: float) -> None:
    found = follow(CYCLE, rate)
    assert isinstance(found, Delays)
    assert CYCLE.look + CYCLE.fixed <= found.p50 <= found.p95 <= found.p99


def test_a_lone_change_waits_for_its_own_refresh_and_one_of_many_also_for_the_one_under_way() -> None:
    alone, among = follow(CYCLE, 0.01), follow(replace(CYCLE, per_change=0), 1_000)
    assert isinstance(alone, Delays)
    assert isinstance(among, Delays)
    refresh = CYCLE.look + CYCLE.fixed
    assert alone.p50 == pytest.approx(refresh, rel=0.1)
    assert among.p50 == pytest.approx(1.5 * refresh, rel=0.1)
    assert among.p99 == pytest.approx(2 * refresh, rel=0.15)


def test_gathered_changes_settle_where_they_are_carried_away_as_fast_as_they_come() -> None:
    found = follow(replace(CYCLE, spread=0), 5_000)
    assert isinstance(found, Delays)
    seconds = (CYCLE.look + CYCLE.fixed) / (1 - 5_000 * CYCLE.per_change)
    assert found.gathered == pytest.approx(5_000 * seconds, rel=0.01)
    assert found.refreshes == pytest.approx(3600 / seconds, rel=0.01)


@pytest.mark.parametrize("rate", [10_000, 10_001, 1e6])
def test_a_rate_that_nobody_can_follow_is_saturated_and_no_delay(rate: float) -> None:
    found = follow(CYCLE, rate)
    assert isinstance(found, Saturated)
    assert found.capacity == pytest.approx(10_000)
    words = page.delays("x", found, None)
    assert words[1:] == ["saturated above 10,000 a second", "", "", "", ""]


def test_only_who_compares_misses_states_in_between() -> None:
    found = follow(CYCLE, 1_000)
    assert isinstance(found, Delays)
    assert found.states_lost(hot_rows=1e12) == pytest.approx(0, abs=1e-4)
    assert found.states_lost(hot_rows=1) > 0.99


@pytest.mark.parametrize(("name", "scale"), [("bench.json", "S"), ("bench.json", "M"), ("bench-l.json", "L")])
def test_a_predicted_load_is_what_the_bench_measured(name: str, scale: str) -> None:
    bench = document(name)
    [measured] = chosen(bench["figures"], scale=scale, scenario="full", tool="totesys")
    slower = slowness(name)
    found = on_one_machine(measured["rows"], bench["machine"]["cores"])
    in_all = measured["client_cpu_seconds"] + measured["server_cpu_seconds"]
    again = "The platform costs something else now. Run: python -m totesys_assets_tests.plan.measure, then make plan"
    assert 1 / FACTOR < found.processors * slower / in_all < FACTOR, again
    assert 1 / FACTOR < found.seconds * slower / measured["seconds"] < FACTOR, again


def slowness(name: str) -> float:
    """How much longer the machine took for the yardstick, when that bench was made; 1 if it was not run at M."""
    yardstick = chosen(document(name)["figures"], scale="M", scenario="full", tool="copy")
    if not yardstick:
        return 1.0
    [copy] = yardstick
    own = chosen(document(PLAN)["runs"], scale="M", what="copy")
    now = middle(own, lambda run: run["client_cpu_seconds"] + run["server_cpu_seconds"])
    return float(copy["client_cpu_seconds"] + copy["server_cpu_seconds"]) / now


def test_a_predicted_load_in_larger_ranges_is_what_was_measured() -> None:
    measured = document(PLAN)
    [run] = chosen(measured["runs"], what="load", scale="M", range_rows=2_000_000)
    rows = sum(measured["rows"].values()) / MILLION
    for place in PLACES:
        scans = math.ceil(rows / 2) * 2 * rows * value("scan") if place == "source" else 0.0
        first, merged = value(f"load, {place}") * 2, value(f"load in ranges, {place}") * (rows - 2)
        predicted = value(f"load fixed, {place}") + first + merged + scans
        assert 1 / FACTOR < predicted / run[f"{place}_cpu_seconds"] < FACTOR, place


def test_a_scan_that_skips_all_rows_costs_what_backfills_of_a_day_cost_the_bench() -> None:
    figures_of_l = document("bench-l.json")["figures"]
    for day in chosen(figures_of_l, scenario="backfill-day", tool="totesys"):
        [full] = chosen(figures_of_l, scenario="full", tool="totesys")
        predicted = 2 * value("scan") * full["rows"] / MILLION
        assert 1 / FACTOR < predicted / day["server_cpu_seconds"] < FACTOR


def test_a_predicted_refresh_of_a_burst_is_what_was_measured() -> None:
    runs = document(PLAN)["runs"]
    alone = middle(chosen(runs, what="burst", days=1), spent)
    for run in chosen(runs, what="burst", days=30):
        predicted = alone + run["rows"] * sum(value(f"change, {place}") for place in PLACES) / MILLION
        assert 1 / FACTOR < predicted / spent(run) < FACTOR, run["rows"]


def spent(run: Document) -> float:
    """Processor seconds of a run and of both servers."""
    return sum(processors(place)(run) for place in PLACES)


def test_the_page_has_what_the_plan_makes() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.main(), "Run: make plan"


def test_every_figure_says_how_it_is_known_and_from_where() -> None:
    for each in figures().values():
        assert each.value > 0 or each.name.startswith(("load fixed", "change")), each.name
        place, _, where = each.source.partition(",")
        if each.kind == "measured":
            assert (DOCS / place).exists() or [*DOCS.glob(f"{place}-*.md")], each
            assert where, each


def test_figures_that_stand_in_the_page_are_those_that_the_plan_reckons_with() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    for words, name in (
        ("fingerprints of everything, by hashing every row", "hashing"),
        ("a look that follows", "look"),
    ):
        row = next(line for line in text.splitlines() if line.startswith(f"| {words}"))
        assert float(row.split("|")[2]) == value(name)
    [request] = re.findall(
        r"^\| one order with its payment.* \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE
    )
    get, head, listed, put = map(int, request)
    assert (get + head, listed + put) == (value("GET of a refresh"), value("PUT of a refresh"))


def test_the_plan_is_that_of_the_deployment() -> None:
    text = (DOCS.parent / "deploy" / "docker" / "dagster.yaml").read_text(encoding="utf-8")
    limits = yaml.safe_load(text)["concurrency"]["runs"]["tag_concurrency_limits"]
    [ranges] = [each["limit"] for each in limits if each.get("value") == "range"]
    assert (Inputs().at_once, longest_run()) == (ranges, 7200)


def test_the_total_is_the_sum_of_its_rows_and_the_first_limit_is_the_nearest() -> None:
    found = Plan(Inputs())
    text = page.made(found)
    [total] = re.findall(r"\| \*\*total\*\* \|.*?\*\*([\d,]+)\*\*", text)
    assert int(total.replace(",", "")) == round(sum(each.dollars for each in costs(found)))
    parts = [each.part for each in found.limits()]
    assert parts == sorted(parts, reverse=True)


def test_the_command_plans_for_what_is_asked() -> None:
    small = CliRunner().invoke(command, ["--orders", "1e6", "--changes", "1", "--days", "730", "--engine", "spark"])
    assert small.exit_code == 0, small.output
    assert "1 million orders are 4 million rows, over 730 days" in small.output
    assert "Spark Connect on Fargate" in small.output


@pytest.mark.parametrize("option", ["orders", "changes", "days", "touched", "hours", "range-rows", "at-once"])
def test_what_no_plan_can_be_made_for_is_refused_in_a_sentence(option: str) -> None:
    refused = CliRunner().invoke(command, [f"--{option}", "0"])
    assert (refused.exit_code, f"Invalid value for '--{option}': 0" in refused.output) == (2, True)
