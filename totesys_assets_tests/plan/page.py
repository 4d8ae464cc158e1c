"""The part of docs/scaling.md that the plan makes: tables, between two marks.

Belongs here: words, rounding, and putting the part in its place. Does not belong here: what the numbers are (plan.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from totesys_assets_tests.deploy import prices
from totesys_assets_tests.plan.constants import DOCS, PLACES, PLAN, Figure, document, figures, value
from totesys_assets_tests.plan.costs import costs, first_load_dollars
from totesys_assets_tests.plan.plan import GB, HOUR, Inputs, Plan, longest, longest_run
from totesys_assets_tests.plan.steady import Delays, Saturated

PAGE = DOCS / "scaling.md"
BEGIN = "<!-- Made by `make plan` from docs/plan.json and the list prices. Change it there. -->"
END = "<!-- The end of what `make plan` makes. -->"
STAGES = {
    "load": "a first load in one run",
    "load in ranges": "a first load, ranges after the first",
    "change": "a change, following the log",
    "audit": "the nightly audit",
    "compare": "the nightly comparison",
}


def page(plan: Plan, text: str) -> str:
    """The page with what the plan makes in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{made(plan)}\n{END}{after}"


def made(plan: Plan) -> str:
    """What stands between the marks."""
    parts = (_question, _load, _live, _nights, _what_it_costs, _limits)
    return "\n".join([_stages(), *(part(plan) for part in parts), _figures()])


def number(amount: float) -> str:
    """To two digits, as people write it."""
    return f"{float(f'{amount:.2g}'):,.0f}" if amount >= 10 else f"{float(f'{amount:.2g}'):g}"


def percent(part: float) -> str:
    """A part of a whole."""
    return f"{part * 100:,.0f} %"


def lasting(seconds: float) -> str:
    """A time, in the unit that suits it."""
    for unit, length in (("days", 24 * HOUR), ("hours", HOUR), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{number(seconds / length)} {unit}"
    return f"{number(seconds)} s"


def sized(amount: float) -> str:
    """Bytes, in the unit that suits them."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if amount >= size:
            return f"{number(amount / size)} {unit}"
    return f"{number(amount)} bytes"


WRITTEN = {"seconds": lasting, "bytes": sized, "": number}


def table(*rows: Sequence[str]) -> str:
    """Rows as a table, the first of which is its head."""
    head, *others = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *others, ""])


def _stages() -> str:
    rows = [[words, *(number(value(f"{name}, {place}")) for place in PLACES)] for name, words in STAGES.items()]
    measured = document(PLAN)
    cores, load = measured["machine"]["cores"], measured["machine"]["load_average"][0]
    busy = f", while others used the machine (load {number(load)} on {cores} cores)" if load > 2 * cores else ""
    return (
        "**What each stage costs**, in processor seconds per million rows, or changes, beside what a run costs at "
        f"any size.\nMeasured on {measured['date'][:10]} at {measured['rows']['sales_order']:,} orders{busy}, "
        "with `python -m totesys_assets_tests.plan.measure` ([plan.json](plan.json)).\n\n"
    ) + table(["stage", "the run", "ToteSys' server", "the warehouse's server"], *rows)


def _question(plan: Plan) -> str:
    asked = plan.inputs
    missed = asked.silent * asked.changes * asked.hours * HOUR / 1e6
    return (
        f"**The plan.** {asked.orders / 1e6:,.0f} million orders are {asked.rows / 1e6:,.0f} million rows, over "
        f"{asked.days:,} days. {asked.changes:,.0f} changes a second,\n"
        f"{percent(asked.silent)} of them without a new `last_updated`, lie in the newest {asked.touched} days. "
        f"A tool that asks for `last_updated` would miss {missed:,.0f} million a day.\n"
        f"The task of a large run has {plan.task[0]:g} vCPU and {plan.task[1]:g} GB, the warehouse "
        f"{plan.warehouse} vCPU, its facts in partitions.\n"
    )


def _load(plan: Plan) -> str:
    rows, own = [], plan.task[0]
    for at_once, index, task in ((1, True, own), (2, True, own), (2, True, 16), (4, True, own), (2, False, own)):
        found = plan.loaded(at_once, index, task)
        busy = found.used["warehouse"] / found.seconds / plan.warehouse
        rows.append(
            [
                f"{at_once} at once, {task:g} vCPU each, {'an' if index else 'no'} index on `created_at`",
                lasting(found.seconds),
                lasting(longest(found)),
                percent(busy),
                percent(found.waited / (found.waited + sum(found.ended) - sum(found.began))),
            ]
        )
    ranges = len(plan.load.began)
    merging = value("load in ranges, warehouse") / value("load, warehouse")
    return (
        f"*The first load* is {ranges} ranges of at most {plan.inputs.range_rows / 1e6:,.0f} million rows. As planned, "
        f"with {plan.inputs.at_once} at once, its tasks cost ${first_load_dollars(plan):,.0f}, once.\n"
        "The first range fills empty tables. Rows of the others are merged into tables that have keys, which costs the "
        f"warehouse {number(merging)} times as much.\n\n"
    ) + table(["ranges", "all of it", "the longest range", "warehouse busy", "waiting for each other"], *rows)


def _live(plan: Plan) -> str:
    hot = plan.inputs.touched * plan.inputs.rows_a_day
    rows = [
        delays("following the log", plan.following, None),
        delays("comparing, on the primary", plan.comparing, hot),
        delays("comparing, on a standby", plan.hashing, hot),
    ]
    for rate in (500, 50):
        other = Plan(replace(plan.inputs, changes=rate))
        rows.append(delays(f"following the log, {rate} a second", other.following, None))
    capacity = 1 / plan.cycle.per_change
    return (
        "*From a change to the warehouse*, as looks and refreshes follow each other and changes gather meanwhile. "
        f"Following the log saturates at {number(capacity)}\nchanges a second; below that, a refresh of nothing takes "
        f"{number(plan.cycle.fixed)} s, most of it requests to S3. Dagster keeps {number(plan.records() / GB)} GB of "
        "records.\n\n"
    ) + table(["", "median", "95 %", "99 %", "changes a refresh", "states that nobody sees"], *rows)


def delays(words: str, found: Delays | Saturated, hot: float | None) -> list[str]:
    """A row of the table of delays; ``hot``: among how many rows changes lie, if not all states are seen."""
    if isinstance(found, Saturated):
        return [words, f"saturated above {number(found.capacity)} a second", "", "", "", ""]
    lost = "none" if hot is None else percent(found.states_lost(hot))
    return [words, *(lasting(each) for each in (found.p50, found.p95, found.p99)), number(found.gathered), lost]


def _nights(plan: Plan) -> str:
    rows = []
    for what, words in (("audit", "audit"), ("compare", "comparison of every row")):
        now, later = plan.nightly(what), plan.nightly(what, months=12)
        rows.append([words, lasting(now), lasting(later), f"{number(plan.fits_a_night(what) / 1e6)} million"])
    return (
        "*The nights.* Each of these is one run of one process. Dagster ends a run after "
        f"{lasting(longest_run())} (`max_runtime_seconds`).\n\n"
    ) + table(["", "now", "after a year", "over in time up to so many orders"], *rows)


def _what_it_costs(plan: Plan) -> str:
    peak = Plan(replace(plan.inputs, hours=1))
    rows, totals = [], [0.0, 0.0]
    for each, other in zip(costs(plan), costs(peak), strict=True):
        totals = [totals[0] + each.dollars, totals[1] + other.dollars]
        processors = f"{each.processors:g}" if each.processors else ""
        rows.append(
            [
                each.part,
                each.where,
                processors,
                f"{each.hours:,.0f}",
                f"{each.dollars:,.0f}",
                f"{other.dollars:,.0f}",
                each.source,
            ]
        )
    day, hour = (f"at {plan.inputs.changes:,.0f} a second {when}" for when in ("day and night", "for an hour a day"))
    added = [each.stored(1) - each.stored(0) for each in (plan, peak)]
    more = [f"${2 * each / GB * prices.GP3_GB:,.0f}" for each in added]
    return (
        "*What runs where*, and what its first month costs, in dollars. Each month adds "
        f"{sized(added[0])} to the warehouse, or {sized(added[1])},\nand so {more[0]} to each month "
        f"after it, or {more[1]}. The largest disk is full after {number(plan.months_of_disk())} months, or "
        f"{number(peak.months_of_disk())}.\n\n"
    ) + table(
        ["part", "where", "vCPU", "hours", day, hour, "source"],
        *rows,
        ["**total**", "", "", "", f"**{totals[0]:,.0f}**", f"**{totals[1]:,.0f}**", ""],
    )


def _limits(plan: Plan) -> str:
    rows = []
    for each in plan.limits():
        write = WRITTEN[each.unit]
        rows.append([each.name, write(each.used), write(each.of), percent(each.part), each.then])
    return "*Which limit is reached first.* What the plan uses of each limit; above 100 % it is passed.\n\n" + table(
        ["limit", "used", "there is", "part", "then"], *rows
    )


def _of(figure: Figure) -> str:
    return (
        f"{sized(figure.value)}{figure.unit[5:]}"
        if figure.unit.startswith("bytes")
        else (f"{number(figure.value)} {figure.unit}")
    )


def _figures() -> str:
    staged = {f"{name}, {place}" for name in STAGES for place in PLACES}
    kinds = ("measured", "listed", "estimated")
    rest = [each for each in figures().values() if each.name not in staged]
    rows: Iterable[list[str]] = (
        [each.name, _of(each), each.kind, each.source] for each in sorted(rest, key=lambda each: kinds.index(each.kind))
    )
    return (
        f"*The other figures.* Prices are list prices of {prices.REGION}, {prices.AS_OF}. No bill was measured.\n\n"
        + table(["figure", "", "known as", "source"], *rows)
    )


def main(plan: Plan | None = None) -> str:
    """The whole page as it ought to be."""
    return page(plan or Plan(Inputs()), PAGE.read_text(encoding="utf-8"))
