"""Words for numbers, times and what is left out or left over.

Belongs here: pure functions from values to text for people. Does not belong here: printing.
"""

from __future__ import annotations

from totesys_assets.counting import counted


def number(count: int, noun: str, plural: str | None = None) -> str:
    """``1 table``, ``2 tables``, ``no tables``."""
    return counted(count, noun, plural) if count else counted(0, noun, plural).replace("0", "no", 1)


def size(count: int) -> str:
    """Bytes as kB, MB, GB, TB, of 1,000 each."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:,.0f} {unit}" if unit == "bytes" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} TB"


def as_set(count: int) -> str:
    """Bytes as they were set in PostgreSQL, whose MB and GB are of 1,024 each: what was set to 10GB is 10 GB."""
    megabytes = count / 1024**2
    return f"{megabytes / 1024:,.4g} GB" if megabytes >= 1024 else f"{megabytes:,.4g} MB"


def span(seconds: float) -> str:
    """A time span in its two largest units: ``3 min 20 s``, ``2 d 5 h``."""
    left = max(0, round(seconds))
    parts: list[tuple[int, str]] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if left >= length or parts or unit == "s":
            parts.append((left // length, unit))
            left %= length
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count) or "0 s"


def left_out(table: str, columns: list[str]) -> str:
    """That columns of a source do not arrive, and what to do about it."""
    from totesys_assets.catalogue.catalogue import catalogue

    names = ", ".join(f'"{each}"' for each in columns)
    are, them = ("is", "it") if len(columns) == 1 else ("are", "them")
    return (
        f'{names} of table "{table}" {are} left out: the catalogue does not know {them}. '
        f"Add {them} to catalogue/{catalogue().source[table].group}.sql, and the values arrive with the next refresh."
    )


def left_over(schema: str, table: str) -> str:
    """That the catalogue does not have a table of the warehouse any more, and what may be done about it."""
    from totesys_assets.catalogue.queries import MART_PREFIX
    from totesys_assets.sql_text import quoted

    what = f'The catalogue does not have table "{table}" of the warehouse any more, so nothing keeps it up to date.'
    if not table.startswith(MART_PREFIX):
        return f"{what} It is kept for its history. If its DDL was removed by mistake, put it back."
    return f"{what} If nobody needs it: DROP TABLE {quoted(schema)}.{quoted(table)}; its DDL and SELECT make it anew."
