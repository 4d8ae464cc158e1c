"""The story of a source of files beside ToteSys, told by a copy of the package that has one.

Belongs here: what happens to the files, and what is seen after each step. Does not belong here: what must be seen
(test_another_source.py). It is a program, because the copy has to be imported in the place of the package.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from totesys_assets.audit.audit import audit
from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.capture.registry import structures
from totesys_assets.catalogue.catalogue import catalogue, lake_schema
from totesys_assets.commands.refresh import _stages
from totesys_assets.refresh import Summary
from totesys_assets.staleness.look import look
from totesys_assets_tests.conftest import Platform, make_platform

# How long a file is taken for one that may be written again without a sign of it: longer in the example.
TICK_SECONDS = 0.2
BUDGET, RATE = "budget", "bank_rate"
ORDER = "UPDATE sales_order SET units_sold = {} WHERE sales_order_id = 1"


def versions(platform: Platform, table: str) -> list[list[str]]:
    """Operation and columns of all versions of a table in the lake, oldest first."""
    held = platform.lake.existing(catalogue().source[table]).to_pyarrow_table().to_pylist()
    names = ["_operation", *catalogue().source[table].by_name]
    return sorted([str(row[name]) for name in names] for row in sorted(held, key=lambda row: row["_recorded_at"]))


def audited(platform: Platform) -> list[str]:
    """What the audit finds wrong of the files and of what is made of them."""
    found = audit(platform.core)
    assert any(each.asset == f"sheets/{RATE}" and each.numbers.get("rows") for each in found)
    return [f"{each.asset} {each.check}: {each.detail}" for each in found if not each.passed]


def looked(platform: Platform) -> dict[str, Any]:
    """What a look finds, and what was refreshed then."""
    seen = platform.look()
    platform.refresh()
    return {
        "stale": sorted(seen.stale),
        "blocked": {name: str(problem) for name, problem in seen.examined.blocked.items()},
        "problems": len(seen.problems),
    }


def story(platform: Platform, files: Path) -> Iterator[tuple[str, Any]]:
    """Each step, and what is seen after it."""
    budget, rate = files / f"{BUDGET}.csv", files / f"{RATE}.csv"

    budget.write_text("budget_month,currency_code,amount\n2024-08-01,GBP,1000.00\n2024-08-01,EUR,500.50\n")
    rate.write_text("rate_date,currency_code,per_pound\n2024-08-19,EUR,1.17\n2024-08-20,EUR,1.18\n")
    yield "first look", looked(platform)
    yield "first versions", [versions(platform, BUDGET), versions(platform, RATE)]
    yield "warehouse", platform.query("SELECT budget_id, amount::text FROM dim_budget ORDER BY 1")
    yield "registry", [each.columns for each in structures(platform.lake, BUDGET)]
    yield "first audit", audited(platform)
    yield (
        "times",
        _stages(Summary(changed=True, success=True, seconds=4.0, stages={"totesys": 2.0, "sheets": 1.0, "other": 0.5})),
    )
    yield "nothing left", sorted(platform.look().stale)

    budget.write_text("budget_month,currency_code,amount,note\n2024-08-01,GBP,1200.00,more\n2024-09-01,GBP,plenty,\n")
    rate.write_text("rate_date,currency_code,per_pound\n2024-08-19,EUR,1.17\n2024-08-20,EUR,1.19\n1999-01-01,EUR,1.5\n")
    yield "second look", looked(platform)
    yield "unknown", platform.look().examined.unknown
    yield "second versions", [versions(platform, BUDGET), versions(platform, RATE)]
    told = ("row_key", "partition", "column_name", "reason", "raw")
    yield "letters", [[row[name] for name in told] for row in open_dead_letters(platform.lake).to_pylist()]
    gone = "SELECT budget_id, _is_deleted FROM dim_budget ORDER BY 1"
    yield "gone in the warehouse", platform.query(gone)
    yield "second audit", audited(platform)

    time.sleep(2 * TICK_SECONDS)  # until the files are no longer fresh
    to_come = time.time() + 86400
    os.utime(budget, (to_come, to_come))
    time.sleep(2 * TICK_SECONDS)
    mark = platform.look().mark
    yield "quiet", look(platform.core, unless=mark).probed_only
    before = budget.stat()
    budget.write_text(budget.read_text().replace("1200", "1300"))
    os.utime(budget, ns=(before.st_atime_ns, before.st_mtime_ns))
    yield "same size and time", [before.st_size == budget.stat().st_size, look(platform.core, unless=mark).probed_only]

    rate.write_bytes(b"\xff\xfe\n")
    platform.sql(ORDER.format(11))
    yield "unreadable", looked(platform)
    rate.write_text("rate_date,currency_code,per_pound\n2024-08-19,EUR,1.17\n2024-08-19,EUR,1.18\n")
    yield "doubled", looked(platform)
    rate.write_text("rate_date,currency_code,per_pound\n2024-08-19,EUR,1.17\n2024-08-20,EUR\n")
    yield "ragged", looked(platform)
    rate.write_text("rate_date,per_pound\n2024-08-19,1.17\n")
    yield "drift", looked(platform)
    yield "refused", [[each.status, each.columns] for each in structures(platform.lake, RATE)]

    files.rename(files.with_name("away"))
    platform.sql(ORDER.format(12))
    yield "no folder", looked(platform)
    files.with_name("away").rename(files)

    rate.write_text("rate_date,currency_code,per_pound\n2024-08-19,EUR,1.17\n2024-08-20,EUR,1.19\n")
    yield "mended", looked(platform)
    yield "third audit", audited(platform)
    table = catalogue().source[BUDGET]
    row = {"budget_month": datetime(2024, 8, 1).date(), "currency_code": "GBP", "amount": Decimal("1.00")}
    row |= {"_operation": "update", "_recorded_at": datetime.now(UTC)}
    tampered = pa.Table.from_pylist([row], schema=lake_schema(table, versioned=True))
    write_deltalake(platform.lake.open_versions(table), tampered, mode="append")
    yield "tampered", audited(platform)


def main(source: str, warehouse: str, folder: Path) -> None:
    """Tell the story over two databases, as one JSON document."""
    files = folder / "files"
    files.mkdir()
    vars(importlib.import_module("totesys_assets.source.sheets"))["_TICK_SECONDS"] = TICK_SECONDS
    with make_platform(source, warehouse, folder, TOTESYS_SHEETS=str(files)) as platform:
        print(json.dumps(dict(story(platform, files)), default=str))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
