"""A lake and a warehouse as an earlier version left them, after three refreshes, are taken over as they are.

``data/version_before.tar.gz`` holds the lake, and dumps of ToteSys and of the warehouse. It was made by the code of
6d99c3e: TRADE, some updates, a deletion, an order that moved to another day, and one that became a dead letter.
"""

from __future__ import annotations

import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from totesys_assets.audit.audit import audit
from totesys_assets.capture.ledger import Ledger
from totesys_assets.local.postgres_programs import binaries
from totesys_assets_tests.conftest import Platform, PostgresServer, make_platform

MADE = Path(__file__).parents[1] / "data" / "version_before.tar.gz"
FACTS = ("fact_sales_order", "fact_purchase_order", "fact_payment")


@pytest.fixture
def platform(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Platform]:
    with tarfile.open(MADE) as made:
        made.extractall(tmp_path, filter="data")
    urls = {name: postgres_server.database() for name in ("totesys", "warehouse")}
    for name, url in urls.items():
        command = [str(binaries() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-f"]
        subprocess.run([*command, str(tmp_path / f"{name}.sql")], check=True, capture_output=True)
    lake = str(tmp_path / "lake")
    with make_platform(urls["totesys"], urls["warehouse"], tmp_path, LAKE_URI=lake) as made_before:
        yield made_before


def warehouse(platform: Platform) -> dict[str, list[tuple[object, ...]]]:
    tables = platform.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE '\\_%'")
    return {str(name): platform.query(f"SELECT t::text FROM {name} AS t ORDER BY 1") for (name,) in tables}


def versions(platform: Platform) -> Counter[str]:
    """Versions that the ledger ever noted, by asset."""
    noted: Counter[str] = Counter()
    for asset, totals in Ledger(platform.lake).totals().items():
        noted[asset] += sum(total.versions for total in totals.values())
    return noted


def test_nothing_is_added_or_doubled_and_the_next_change_is_one_version(platform: Platform) -> None:
    before, held = warehouse(platform), versions(platform)
    assert [len(before[name]) for name in FACTS] == [2, 3, 3]
    platform.refresh()
    first = warehouse(platform)
    assert {name: first[name] for name in before} == before
    assert {name.partition("_")[0] for name in first.keys() - before.keys()} == {"dim", "fact", "mart"}
    taken_over = versions(platform)
    assert {name: taken_over[name] for name in held} == held
    assert +(taken_over - held) == Counter({"ingestion/exchange_rate": 20})  # ten days with rates of two currencies
    assert platform.look().requests == []
    assert {finding.outcome for finding in audit(platform.core)} <= {"equal", "warning"}
    platform.sql("UPDATE payment SET paid = NOT paid WHERE payment_id = (SELECT max(payment_id) FROM payment)")
    platform.refresh()
    assert versions(platform) - taken_over == Counter({"ingestion/payment": 1})
    after = warehouse(platform)
    assert {name for name in after if after[name] != first[name]} == {"fact_payment", "mart_payments_day"}
    assert len(after["fact_payment"]) == len(before["fact_payment"]) + 1
