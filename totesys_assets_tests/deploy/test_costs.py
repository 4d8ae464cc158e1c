"""What the documents say that it costs: sums that are sums, and Fargate's part from its sizes and list prices."""

from __future__ import annotations

import re

import pytest

from totesys_assets_tests.deploy.conftest import PROJECT
from totesys_assets_tests.deploy.prices import ARM, FARGATE_GB, HOURS, X86, rows, services, sizes

DEPLOY, SMALL = ((PROJECT / "docs" / name).read_text(encoding="utf-8") for name in ("deploy.md", "small.md"))
LEAN = (PROJECT / "deploy" / "terraform" / "lean.tfvars").read_text(encoding="utf-8")
NO_UI = {"code", "daemon"}
SHOWN = NO_UI | {"webserver", "dashboard"}


def fargate(kinds: set[str], prices: tuple[float, float], own: dict[str, tuple[float, float]]) -> tuple[float, ...]:
    """vCPU, GB, and what they cost in a month."""
    chosen = [{**sizes(services()), **own}[kind] for kind in kinds]
    processors, memory = sum(cpu for cpu, _ in chosen), sum(gigabytes for _, gigabytes in chosen)
    return processors, memory, HOURS * (processors * prices[0] + memory * prices[1])


@pytest.mark.parametrize("column", [1, 2, 3])
def test_a_total_is_the_sum_of_its_rows(column: int) -> None:
    *parts, total = rows(DEPLOY, "part")
    assert len(parts) > 5
    assert (total[0], int(total[column])) == ("total", sum(int(part[column]) for part in parts))


def test_what_fargate_costs_follows_from_the_sizes() -> None:
    part = next(row for row in rows(DEPLOY, "part") if row[0].startswith("Fargate, the services"))
    found = [
        fargate(SHOWN | {"viewer"}, X86, {}),
        fargate(SHOWN, ARM, sizes(LEAN)),
        fargate(NO_UI, ARM, sizes(LEAN)),
    ]
    assert [int(cell) for cell in part[1:]] == [round(cost) for _, _, cost in found]
    said = [float(number) for number in re.findall(r"\b\d+(?:\.\d)?\b", part[0])]
    assert said == [number for processors, memory, _ in found for number in (processors, memory)]


@pytest.mark.parametrize("text", [services(), LEAN])
def test_fargate_has_tasks_of_the_sizes_that_are_asked_for(text: str) -> None:
    for kind, (processors, memory) in sizes(text).items():
        least, most = FARGATE_GB[processors]
        assert least <= memory <= most, kind


def test_the_small_size_costs_what_its_rows_do_and_less_than_seventy() -> None:
    *parts, total = rows(SMALL, "part")
    cost = sum(float(part[2]) for part in parts)
    assert float(total[2]) == pytest.approx(cost)
    assert cost < 70
    assert f"costs [{round(cost)}](small.md#what-it-costs)" in DEPLOY


def test_the_choice_of_sizes_names_what_the_sums_are() -> None:
    chosen = DEPLOY.partition("| size |")[2].partition("\n\n")[0].splitlines()[2:]
    said = {cells[1].strip(): cells[3].strip() for cells in (line.split("|") for line in chosen)}
    total = [round(int(cell), -1) for cell in rows(DEPLOY, "part")[-1][1:]]
    names = ("default", "lean", "lean, without a UI")
    assert [said[name] for name in names] == [f"${cost}" for cost in total]
    assert said["[small](small.md)"] == "$65"
    assert f"${min(total)} to ${max(total)}" in (PROJECT / "README.md").read_text(encoding="utf-8")


def test_the_lean_profile_is_what_its_test_tries() -> None:
    def settings(text: str) -> str:
        return re.sub(r"\s*(#.*)?\n\s*|\s+", " ", text)

    tried = (PROJECT / "deploy" / "terraform" / "tests" / "lean.tftest.hcl").read_text(encoding="utf-8")
    for name, value in re.findall(r"^(\w+) += ([^{#\n]+?) *(?:#.*)?$", LEAN, re.MULTILINE):
        assert re.search(rf"^  {name} += {re.escape(value)}$", tried, re.MULTILINE), name
    both = [dict(re.findall(r"(\w+) += (\{ cpu = \d+, memory = \d+ \})", settings(text))) for text in (LEAN, tried)]
    assert both[0] == both[1]
    assert both[0]
