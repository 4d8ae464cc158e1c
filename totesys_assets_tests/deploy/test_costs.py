"""What the documents say that it costs: sums that are sums, and Fargate's part from its sizes and list prices."""

from __future__ import annotations

import re

import pytest

from totesys_assets_tests.deploy.conftest import PROJECT

DEPLOY, SMALL = ((PROJECT / "docs" / name).read_text(encoding="utf-8") for name in ("deploy.md", "small.md"))
SERVICES = (PROJECT / "deploy" / "terraform" / "services.tf").read_text(encoding="utf-8")
LEAN = (PROJECT / "deploy" / "terraform" / "lean.tfvars").read_text(encoding="utf-8")
HOURS = 730
# us-east-1, an hour of a vCPU and of a GB.
X86, ARM = (0.04048, 0.004445), (0.03238, 0.00356)
NO_UI = {"code", "daemon"}
SHOWN = NO_UI | {"webserver", "dashboard"}


def rows(document: str, first: str) -> list[list[str]]:
    """The cells of the table whose head begins with a word."""
    table = document.partition("## What it costs")[2].partition(f"\n| {first} |")[2].partition("\n\n")[0]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def sizes(text: str) -> dict[str, tuple[float, float]]:
    """Kind of task -> vCPU and GB."""
    found = re.findall(r"^\s+(\w+)\s+= \{ cpu = (\d+), memory = (\d+) \}", text, re.MULTILINE)
    return {kind: (int(cpu) / 1024, int(memory) / 1024) for kind, cpu, memory in found}


def fargate(kinds: set[str], prices: tuple[float, float], own: dict[str, tuple[float, float]]) -> tuple[float, ...]:
    """vCPU, GB, and what they cost in a month."""
    chosen = [{**sizes(SERVICES), **own}[kind] for kind in kinds]
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
