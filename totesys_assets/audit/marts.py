"""The checks of the marts and of what converts money: sums, names of countries, rates.

Belongs here: what must be equal, or is worth a look, of them. Does not belong here: that a mart is what follows from
the lake, which is checked as of any other table (star.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

from totesys_assets.audit.findings import (
    CONVERTED,
    COUNTRIES,
    FRESH_RATES,
    PLAUSIBLE_RATES,
    SUMS,
    Finding,
    some,
)
from totesys_assets.audit.observed import Observed
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.counting import counted
from totesys_assets.days import MOST_DAYS_WITHOUT_A_RATE
from totesys_assets.names import WAREHOUSE
from totesys_assets.source.ecb import embedded_until

_MOST_CHANGE = Decimal("0.10")
_EXAMPLES = 5


@dataclass(frozen=True)
class _Sums:
    """A mart that sums a fact: how many rows it counts, their worth, and each breakdown, which has all of them."""

    fact: str
    rows: str
    money: str
    worth: str
    breakdowns: tuple[str, ...] = ("total",)
    column: str = "'total'"
    # The day whose rate converts it.
    day: str = "created_date"


_MARTS = {
    "mart_sales_day": _Sums(
        "sales_order",
        "orders",
        "revenue",
        "units_sold * unit_price",
        ("total", "staff", "customer", "location"),
        "breakdown",
    ),
    "mart_purchases_day": _Sums(
        "purchase_order",
        "orders",
        "cost",
        "item_quantity * item_unit_price",
        ("total", "staff", "supplier"),
        "breakdown",
    ),
    "mart_payments_day": _Sums("payment", "payments", "amount", "payment_amount", day="payment_date"),
}
_OTHERS = {
    "dim_country": (COUNTRIES,),
    "mart_exchange_rate": (CONVERTED,),
    "fact_exchange_rate": (FRESH_RATES, PLAUSIBLE_RATES),
}


def checks(table: Table) -> Iterator[str]:
    """The checks that there are of ``table``, beside those of every table."""
    if table.name in _MARTS:
        yield SUMS
    yield from _OTHERS.get(table.name, ())


def sums(seen: Observed, table: Table) -> Finding:
    """Each breakdown of a mart has all rows of its fact, and all their money, on every day and in every currency."""
    asset, mart = f"{WAREHOUSE}/{table.name}", _MARTS[table.name]
    in_fact = seen.warehouse.execute(
        f"SELECT created_date::text, currency_id, count(*), sum({mart.worth}) "
        f"FROM {seen.name(f'current_{mart.fact}')} GROUP BY 1, 2"
    ).fetchall()
    in_mart = seen.warehouse.execute(
        f"SELECT created_date::text, currency_id, {mart.column}, sum({mart.rows}), sum({mart.money}) "
        f"FROM {seen.name(table.name)} GROUP BY 1, 2, 3"
    ).fetchall()
    pending = seen.pending(asset)
    expected = {
        (day, currency, breakdown): (rows, money)
        for day, currency, rows, money in in_fact
        for breakdown in mart.breakdowns
        if day not in pending
    }
    held = {key: (rows, money) for *key_, rows, money in in_mart if (key := tuple(key_))[0] not in pending}
    if not expected and not held and (nothing := seen.nothing(asset, SUMS)):
        return nothing
    codes = dict(seen.warehouse.execute(f"SELECT currency_id, currency_code FROM {seen.name('dim_currency')}"))
    differing = {
        f"{key[0]} in {codes.get(key[1], f'currency {key[1]}')} ({key[2]})"
        for key in expected.keys() | held.keys()
        if expected.get(key) != held.get(key)
    }
    numbers: dict[str, int | str] = {"sums": len(held), "sums_differing": len(differing)}
    detail = f"{counted(len(held), 'sum')} of its fact, equal to the penny" if held else "no sums, and no facts"
    if differing:
        detail = f"sums differ from those of current_{mart.fact}: {some(differing)}"
    return Finding(asset, SUMS, not differing, detail, len(pending), numbers)


def countries(seen: Observed, table: Table) -> Finding:
    """Every name of a country in an address is known."""
    rows = seen.warehouse.execute(
        f"SELECT country FROM {seen.name(table.name)} WHERE country_code IS NULL AND country IN "
        f"(SELECT country FROM {seen.name('dim_location')}) ORDER BY 1"
    ).fetchall()
    names = [str(name) for (name,) in rows]
    detail = "every name of a country has its ISO code"
    if names:
        have = "has" if len(names) == 1 else "have"
        detail = (
            f"{counted(len(names), 'name')} {have} no ISO code: {some(names)}. What is sold there is in every total, "
            "and on no map, until catalogue/country.csv knows the name"
        )
    asset = f"{WAREHOUSE}/{table.name}"
    return Finding(asset, COUNTRIES, not names, detail, 0, {"unknown": len(names)}, warning=True)


def converted(seen: Observed, table: Table) -> Finding:
    """Every currency of an order or a payment has a rate on its day."""
    used = " UNION ALL ".join(
        f"SELECT {mart.day} AS day, currency_id, {mart.rows} AS number FROM {seen.name(name)}"
        + (f" WHERE {mart.column} = 'total'" if mart.column == "breakdown" else "")
        for name, mart in _MARTS.items()
    )
    rows = seen.warehouse.execute(
        "SELECT coalesce(currency.currency_code, 'currency ' || used.currency_id), sum(used.number)::bigint "
        f"FROM ({used}) AS used LEFT JOIN {seen.name('dim_currency')} AS currency USING (currency_id) "
        f"LEFT JOIN {seen.name(table.name)} AS rate "
        "ON rate.day = used.day AND rate.currency_code = currency.currency_code "
        "WHERE rate.day IS NULL GROUP BY 1 ORDER BY 1"
    ).fetchall()
    number = sum(rows_without for _, rows_without in rows)
    detail = "every order and payment has a rate of its day"
    if rows:
        named = ", ".join(f"{counted(rows_without, 'row')} in {code}" for code, rows_without in rows[:_EXAMPLES])
        detail = f"no rate converts {named}: they are counted as unconverted, and are in no sum of revenue"
    return Finding(f"{WAREHOUSE}/{table.name}", CONVERTED, not rows, detail, 0, {"unconverted": number}, warning=True)


def fresh(seen: Observed, table: Table) -> Finding:
    """The newest rate was published not long ago; the file that comes with the platform is as old as it is."""
    asset = f"{WAREHOUSE}/{table.name}"
    [(newest,)] = seen.warehouse.execute(f"SELECT max(rate_date) FROM {seen.name(table.name)}").fetchall()
    if newest is None:
        return seen.nothing(asset, FRESH_RATES) or Finding(
            asset, FRESH_RATES, False, "there are no rates: nothing can be converted"
        )
    days, last = (datetime.now(UTC).date() - newest).days, embedded_until()
    detail = f"the newest rates are of {newest}"
    is_old = days > MOST_DAYS_WITHOUT_A_RATE
    if is_old:
        detail += f", {counted(days, 'day')} ago; money of the days since then converts at these"
    if is_old and newest <= last:
        detail += f". The file that comes with the platform ends on {last}: TOTESYS_RATES_URL fetches newer ones"
    passed = not is_old or newest <= last
    return Finding(asset, FRESH_RATES, passed, detail, 0, {"newest": str(newest), "days_since": days})


def plausible(seen: Observed, table: Table) -> Finding:
    """No rate of a currency of ToteSys is a tenth away from the one before it, and every rate is above zero."""
    asset = f"{WAREHOUSE}/{table.name}"
    rates = seen.name(f"current_{table.name.removeprefix('fact_')}")
    zero = seen.warehouse.execute(
        f"SELECT currency_code, rate_date, units_per_euro FROM {rates} WHERE units_per_euro <= 0 ORDER BY 2 DESC, 1"
    ).fetchall()
    jumps = seen.warehouse.execute(
        "SELECT currency_code, rate_date, units_per_euro, before FROM ("
        "SELECT *, lag(units_per_euro) OVER (PARTITION BY currency_code ORDER BY rate_date) AS before "
        f"FROM {rates} WHERE units_per_euro > 0 AND currency_code IN "
        f"(SELECT currency_code FROM {seen.name('dim_currency')})) AS rate "
        f"WHERE abs(units_per_euro / before - 1) > {_MOST_CHANGE} ORDER BY 2 DESC, 1"
    ).fetchall()
    found = [_not_above_zero(*row) for row in zero] + [_jump(*row) for row in jumps]
    more = f", and {len(found) - _EXAMPLES:,} more" if len(found) > _EXAMPLES else ""
    detail = "; ".join(found[:_EXAMPLES]) + more if found else "every rate is above zero and near the one before it"
    numbers: dict[str, int | str] = {"not_above_zero": len(zero), "jumps": len(jumps)}
    return Finding(asset, PLAUSIBLE_RATES, not found, detail, 0, numbers, warning=True)


def _not_above_zero(currency: str, day: date, rate: Decimal) -> str:
    return f"{currency} of {day} is {_plain(rate)}, which converts nothing"


def _jump(currency: str, day: date, rate: Decimal, before: Decimal) -> str:
    return f"{currency} went from {_plain(before)} to {_plain(rate)} on {day}"


def _plain(rate: Decimal) -> str:
    return f"{rate.normalize():f}"
