"""The check of what PostgreSQL keeps beside a table: counts of versions, what is superseded, sums by name of design."""

from __future__ import annotations

from collections.abc import Iterator

from totesys_assets.audit.findings import KEPT, Finding
from totesys_assets.audit.observed import Observed
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.counting import counted
from totesys_assets.names import WAREHOUSE
from totesys_assets.warehouse.kept import kept_queries

_COMPARED = """
WITH kept AS MATERIALIZED ({kept}), follows AS MATERIALIZED ({follows})
SELECT (SELECT count(*) FROM kept), greatest(
    (SELECT count(*) FROM (TABLE kept EXCEPT ALL TABLE follows) AS odd),
    (SELECT count(*) FROM (TABLE follows EXCEPT ALL TABLE kept) AS missing)
)
"""


def checks(table: Table) -> Iterator[str]:
    """The checks that there are of ``table``, beside those of every table."""
    if table.is_fact:
        yield KEPT


def kept(seen: Observed, table: Table) -> Finding:
    """What triggers keep beside a table is what follows from its rows, and from the names of designs."""
    asset, numbers = f"{WAREHOUSE}/{table.name}", dict[str, int]()
    right, wrong = [], []
    for what, (held, follows) in kept_queries(seen.schema, table).items():
        [(rows, odd)] = seen.warehouse.execute(_COMPARED.format(kept=held, follows=follows).encode()).fetchall()
        right.append(counted(rows, what))
        if odd:
            wrong.append(f"{counted(odd, what)} {'differs' if odd == 1 else 'differ'}")
        name = f"{what.replace(' ', '_')}s"
        numbers |= {name: rows, f"{name}_differing": odd}
    if not any(numbers.values()) and (nothing := seen.nothing(asset, KEPT)):
        return nothing
    detail = f"{' and '.join(right)}, equal to what follows from the rows"
    if wrong:
        detail = (
            f"{' and '.join(wrong)} from what follows from the rows: "
            "somebody changed them by hand, or kept the triggers from running. They are made anew if the owner drops "
            f'a trigger of the table ("DROP TRIGGER keep_insert ON {table.name}") and runs totesys migrate'
        )
    return Finding(asset, KEPT, not wrong, detail, 0, {**numbers})
