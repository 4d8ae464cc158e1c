"""The scenarios: what is done to ToteSys before a refresh, how the refresh is asked for, how many rows it concerns.

Belongs here: one function per scenario. Does not belong here: measuring, and the order of rounds (rounds.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString

import psycopg

from totesys_assets.days import DayRange
from totesys_assets.local.simulator import Traffic
from totesys_assets_tests.bench.sandbox import Sandbox

MONTH_DAYS = 30
ORDER_ROWS = 3  # an order, its transaction and its payment

# Every hundredth row by key, and so of every day; of these, every second one without its last_updated.
CHANGES: tuple[LiteralString, ...] = (
    "UPDATE sales_order SET units_sold = units_sold + 1, last_updated = "
    "CASE WHEN sales_order_id %% 200 < 100 THEN CURRENT_TIMESTAMP ELSE last_updated END "
    "WHERE sales_order_id %% 100 = %s",
    "UPDATE purchase_order SET item_quantity = item_quantity + 1, last_updated = "
    "CASE WHEN purchase_order_id %% 200 < 100 THEN CURRENT_TIMESTAMP ELSE last_updated END "
    "WHERE purchase_order_id %% 100 = %s",
    "UPDATE payment SET payment_amount = payment_amount + 0.01, last_updated = "
    "CASE WHEN payment_id %% 200 < 100 THEN CURRENT_TIMESTAMP ELSE last_updated END "
    "WHERE payment_id %% 100 = %s",
)


@dataclass(frozen=True)
class Job:
    """A refresh that is ready to be measured: its arguments, the rows it concerns, whether it has work to do."""

    arguments: tuple[str, ...]
    rows: int
    changes: bool = True


@dataclass(frozen=True)
class Scenario:
    """A refresh to measure. ``prepare`` does what comes before; it gets the number of the round.

    ``is_long``: on a scale above M it would take longer than it tells.
    """

    name: str
    title: str
    prepare: Callable[[Sandbox, int], Job]
    is_long: bool = False


def _full(sandbox: Sandbox, _: int) -> Job:
    sandbox.reset()
    return Job((), sum(sandbox.rows().values()))


def _nothing(_: Sandbox, __: int) -> Job:
    return Job((), 0, changes=False)


def _one_order(sandbox: Sandbox, number: int) -> Job:
    with Traffic(sandbox.urls.totesys, seed=number) as traffic:
        traffic.new_sale()
    return Job((), ORDER_ROWS)


def _one_percent(sandbox: Sandbox, number: int) -> Job:
    with psycopg.connect(sandbox.urls.totesys) as connection:
        changed = [connection.execute(change, [number % 100]).rowcount for change in CHANGES]
    return Job((), sum(changed))


def _one_day(sandbox: Sandbox, _: int) -> Job:
    return _backfill(sandbox, 1)


def _month(sandbox: Sandbox, _: int) -> Job:
    return _backfill(sandbox, MONTH_DAYS)


def _backfill(sandbox: Sandbox, length: int) -> Job:
    """Days in the middle of the data, as many of them as there are."""
    every = sandbox.days()
    first = max(every.first, sandbox.middle_day() - timedelta(days=length // 2))
    days = DayRange(first, min(every.last, first + timedelta(days=length - 1)))
    return Job(("--from", str(days.first), "--to", str(days.last)), sandbox.rows_of(days))


def _everything(sandbox: Sandbox, _: int) -> Job:
    return Job(("--full",), sum(sandbox.rows().values()))


FULL = Scenario("full", "full load", _full)
# In the order of a round: each finds the platform up to date with what came before.
SCENARIOS = (
    FULL,
    Scenario("nothing", "nothing changed", _nothing),
    Scenario("one-order", "one new order", _one_order),
    Scenario("one-percent", "1 % changed", _one_percent),
    Scenario("backfill-day", "backfill of one day", _one_day),
    Scenario("backfill-month", f"backfill of {MONTH_DAYS} days", _month, is_long=True),
    Scenario("backfill-all", "comparing everything", _everything, is_long=True),
)
LATENCY = "latency"  # measured by itself: see latency.py
QUESTIONS = "questions"  # and these: see answers.py
NAMES = (*(scenario.name for scenario in SCENARIOS), LATENCY, QUESTIONS)
