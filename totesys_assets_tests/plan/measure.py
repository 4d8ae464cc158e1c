"""Measures what the plan reckons with: loads in ranges, bursts of changes, the nightly runs. Writes docs/plan.json.

``python -m totesys_assets_tests.plan.measure`` takes ten minutes of two cores. Belongs here: what is run and noted.
Does not belong here: what follows from it (constants.py).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from totesys_assets.local.simulator import Traffic
from totesys_assets_tests.bench.competitors import CopyPipe
from totesys_assets_tests.bench.meter import Meter, server_cpu
from totesys_assets_tests.bench.report import machine
from totesys_assets_tests.bench.sandbox import Sandbox, Scale, sandbox

FILE = Path(__file__).parents[2] / "docs" / "plan.json"
RANGES = (1_000_000, 2_000_000)
# Changes, and of how many of the newest days: what a change costs, and what a day costs.
BURSTS = ((1_000, 1), (1_000, 30), (10_000, 30), (40_000, 30), (80_000, 30), (1_000, 1), (1_000, 30), (10_000, 30))
DAYS = 730  # that the simulated trade spans
REFRESH = ("refresh", "--json")
Document = dict[str, Any]


def measure(home: Path) -> Document:
    """Everything that was measured, one entry a run, in the order of the runs."""
    with sandbox(home / "S", Scale.named("S"), _say) as small:
        runs = [_yardstick(small), *(_load(small, 0) for _ in range(2))]
    with sandbox(home / "M", Scale.named("M"), _say) as compared:
        rows = compared.rows()
        runs += [_yardstick(compared)]
        for limit in (*RANGES, 0):
            runs += [_load(compared, limit), _yardstick(compared)]
        source, totesys = compared.database_bytes(compared.urls.totesys), sum(rows.values())
        runs += [_run(compared, "audit", {}, ("audit",), rows=totesys), _yardstick(compared)]
        runs += [_run(compared, "compare", {}, (*REFRESH, "--full"), rows=totesys), _yardstick(compared)]
        runs += _live(replace(compared, follows_log=True), rows)
        events = (compared.database_bytes(compared.urls.dagster or ""), compared.events())
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "rows": rows,
        "source_bytes": source,
        "dagster_bytes_and_events": events,
        "runs": runs,
    }


def _load(box: Sandbox, range_rows: int) -> Document:
    box.reset()
    limit = {"TOTESYS_RANGE_ROWS": str(range_rows)}
    return _run(box, "load", limit, REFRESH, range_rows=range_rows, rows=sum(box.rows().values()))


def _live(followed: Sandbox, rows: Mapping[str, int]) -> list[Document]:
    """Refreshes that follow the log, of orders and of bursts of changes."""
    _order(followed, 0)
    _run(followed, "begin", {}, REFRESH)
    runs = []
    for number in range(1, 4):
        _order(followed, number)
        runs += [_run(followed, "order", {}, REFRESH, rows=3)]
    for changes, days in BURSTS:
        changed = _burst(followed, rows, changes, days)
        runs += [_run(followed, "burst", {}, REFRESH, rows=changed, days=days)]
    return runs


def _run(box: Sandbox, what: str, env: Mapping[str, str], arguments: tuple[str, ...], **noted: int) -> Document:
    program = box.command(*arguments)
    program = replace(program, env={**program.env, **env})
    box.checkpoint()
    before, (source, warehouse) = _sizes(box), [server_cpu([each]) for each in box.postmasters]
    with Meter() as meter:
        said = meter.run(program)
    after = [server_cpu([each]) for each in box.postmasters]
    told = json.loads(said) if "--json" in arguments else {}
    done = {
        "scale": box.scale.name,
        "what": what,
        **noted,
        "seconds": round(meter.cost.seconds, 3),
        "in_the_run": round(sum(told.get("stages", {}).values()), 3),
        "client_cpu_seconds": round(meter.cost.client_cpu_seconds, 3),
        "source_cpu_seconds": round(after[0] - source, 3),
        "warehouse_cpu_seconds": round(after[1] - warehouse, 3),
        "peak_memory_bytes": meter.cost.peak_memory_bytes,
        **{name: size - before[name] for name, size in _sizes(box).items()},
        "stages": told.get("stages", {}),
        "work": told.get("work", {}),
    }
    _say(str(done))
    return done


def _yardstick(box: Sandbox) -> Document:
    target = box.target("plan_copy")
    box.checkpoint()
    with Meter(box.postmasters) as meter:
        CopyPipe().load(box, target, meter)
    box.drop("plan_copy")
    cost = meter.cost
    done = {
        "scale": box.scale.name,
        "what": "copy",
        "seconds": round(cost.seconds, 3),
        "client_cpu_seconds": round(cost.client_cpu_seconds, 3),
        "server_cpu_seconds": round(cost.server_cpu_seconds, 3),
    }
    _say(str(done))
    return done


def _sizes(box: Sandbox) -> dict[str, int]:
    """Of what a run makes larger. ``wal``: what the warehouse's server has written to its log, Dagster's tables too."""
    with psycopg.connect(box.urls.warehouse) as connection:
        [[wal]] = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").fetchall()
    warehouse = box.database_bytes(box.urls.warehouse)
    return {"lake_bytes": box.lake_bytes(), "warehouse_bytes": warehouse, "wal_bytes": wal, "events": box.events()}


def _order(box: Sandbox, number: int) -> None:
    with Traffic(box.urls.totesys, seed=number) as traffic:
        traffic.new_sale()


def _burst(box: Sandbox, rows: Mapping[str, int], changes: int, days: int) -> int:
    """Change rows of the newest days, evenly spread, half of them sales orders; of more than there are, each once."""
    done = 0
    with psycopg.connect(box.urls.totesys) as connection:
        for table, key, column in (
            ("sales_order", "sales_order_id", "units_sold"),
            ("payment", "payment_id", "payment_amount"),
        ):
            newest = round(rows[table] * days / DAYS)
            every = max(1, newest * 2 // changes)
            chosen = f"{key} > (SELECT max({key}) FROM {table}) - {newest} AND {key} % {every} = 0"
            done += connection.execute(f"UPDATE {table} SET {column} = {column} + 1 WHERE {chosen}".encode()).rowcount
    return done


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        Path(folder).chmod(0o711)  # as root, the servers run as another user, who must pass through
        measured = measure(Path(folder))
    FILE.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
