"""What the plan costs a month: the parts of the stack, at list prices.

Belongs here: hours and sizes times prices. Does not belong here: the prices (deploy/prices.py), and what hours and
sizes are (plan.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from totesys_assets_tests.deploy import prices
from totesys_assets_tests.plan.constants import DOCS, MILLION, value
from totesys_assets_tests.plan.plan import DAYS_A_MONTH, GB, HOUR, TB, Plan


@dataclass(frozen=True)
class Cost:
    """A part of the plan: where it runs, processors, hours and dollars a month; the sources of its numbers."""

    part: str
    where: str
    processors: float
    hours: float
    dollars: float
    source: str


_SERVICES = ("code", "daemon", "webserver", "viewer", "dashboard")


def costs(plan: Plan) -> list[Cost]:
    """What a month costs, its first: with a standby of the warehouse, as the default of Terraform has it."""
    processor, gigabyte = prices.X86
    vcpu, memory = plan.task
    large = vcpu * processor + memory * gigabyte
    nightly = sum(plan.times_a_month(what) * plan.nightly(what) for what in ("audit", "compare")) / HOUR
    requests = plan.refreshes_a_month / MILLION
    gets, puts = value("GET of a refresh"), value("PUT of a refresh")
    stack = {row[0].partition(",")[0].partition(":")[0]: float(row[1]) for row in _stack()}
    services, small = stack["Fargate"], sum(prices.sizes(prices.services())[kind][0] for kind in _SERVICES)
    rest = sum(stack[name] for name in stack if name not in {"Fargate", "RDS", "total"} and "S3" not in name)
    rds, disk = prices.R7G_HOURS[plan.warehouse], plan.stored(1) / GB * prices.GP3_GB
    lake = plan.lake(1) / GB * prices.S3_GB
    listed = f"list prices of {prices.REGION}"
    hours = float(prices.HOURS)
    costs = [
        Cost("looks, refreshes, UI", "Fargate, the services", small, hours, services, "deploy.md"),
        Cost("audit, comparison", "Fargate, a task each", vcpu, nightly, nightly * large, "nights, list prices"),
        Cost("warehouse", f"RDS, two db.r7g, {8 * plan.warehouse} GB", plan.warehouse, hours, 2 * hours * rds, listed),
        Cost("its disk", f"gp3, {plan.stored(1) / TB:.1f} TB, twice", 0, hours, 2 * disk, listed),
        Cost("lake", f"S3, {plan.lake(1) / TB:.1f} TB", 0, hours, lake, listed),
        Cost(
            "requests",
            f"S3, {plan.refreshes_a_month:,.0f} refreshes",
            0,
            plan.inputs.hours * DAYS_A_MONTH,
            requests * (gets * prices.S3_GETS + puts * prices.S3_PUTS),
            "scaling.md, list prices",
        ),
        Cost("network, logs, keys", "endpoints, load balancer, CloudWatch", 0, hours, rest, "deploy.md"),
    ]
    if plan.inputs.engine == "spark":
        spark = 16 * (processor + 4 * gigabyte) * hours
        costs.append(Cost("star, marts", "Spark Connect on Fargate, 64 GB", 16, hours, spark, listed))
    return costs


def _stack() -> Iterable[list[str]]:
    found = prices.rows(DOCS.joinpath("deploy.md").read_text(encoding="utf-8"), "part")
    return [row for row in found if not row[0].startswith("Fargate, three")]


def first_load_dollars(plan: Plan) -> float:
    """What the tasks of the first load cost, once."""
    vcpu, memory = plan.task
    hours = sum(end - begin for begin, end in zip(plan.load.began, plan.load.ended, strict=True)) / HOUR
    return hours * (vcpu * prices.X86[0] + memory * prices.X86[1])
