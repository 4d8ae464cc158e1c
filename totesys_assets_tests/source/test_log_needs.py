"""What a server must offer before its log can be followed: what is missing, and what to do about it where it runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from totesys_assets.source.totesys.log_needs import Need, needs
from totesys_assets.source.totesys.log_state import LogState, LogTable, Slot

pytestmark = pytest.mark.pure

TABLES = ("design", "payment")
GOOD = LogState(
    server="1/00000001/2",
    database="totesys",
    version=180_006,
    wal_level="logical",
    keep_bytes=10 * 1024**3,
    idle_timeout="3d",
    slots_allowed=10,
    slots_used=1,
    standby=False,
    door="open",
    publication="identity",
    whole=True,
    tables={name: LogTable(published=True, obstacle=None) for name in TABLES},
    slot=None,
    others=(),
    flushed=1,
    login="totesys_reader",
    provider=None,
)
OURS = Slot(
    ours=True,
    plugin="pgoutput",
    database="totesys",
    wal_status="reserved",
    reason=None,
    active_pid=None,
    restart=1,
    confirmed=2,
    retained=3,
    safe=4,
)


def unmet(state: LogState) -> dict[str, Need]:
    return {need.name: need for need in needs(state, TABLES) if not need.met}


def test_a_server_that_offers_all_lacks_nothing() -> None:
    assert unmet(GOOD) == {}
    assert [need.name for need in needs(GOOD, TABLES)] == [
        "server",
        "primary",
        "wal_level",
        "max_slot_wal_keep_size",
        "idle_replication_slot_timeout",
        "replication slots",
        "door",
        "publication",
        "tables",
    ]
    assert needs(GOOD, TABLES)[3].found == "10.0 GB"


@pytest.mark.parametrize(
    ("state", "name", "found", "to_do"),
    [
        (replace(GOOD, version=130_014), "server", "PostgreSQL 13.14", "Upgrade it to PostgreSQL 14 or later."),
        (replace(GOOD, standby=True), "primary", "a standby", "name the primary"),
        (replace(GOOD, wal_level="replica"), "wal_level", "replica", "wal_level = logical in postgresql.conf and rest"),
        (replace(GOOD, keep_bytes=None), "max_slot_wal_keep_size", "no limit", "say to 10GB, in postgresql.conf"),
        (replace(GOOD, slots_used=10), "replication slots", "10 of 10 in use", "a larger max_replication_slots and"),
        (replace(GOOD, door="missing"), "door", "missing", "psql -f deploy/sql/source_log.sql."),
        (replace(GOOD, door="closed", login="me"), "door", "closed to me", "psql -v role='me' -f deploy/sql/source_l"),
        (replace(GOOD, publication=None, whole=False), "publication", "missing", "Run deploy/sql/source_log.sql as"),
        (
            replace(GOOD, whole=False),
            "publication",
            "without some kinds of changes",
            "ALTER PUBLICATION totesys_log SET",
        ),
    ],
)
def test_what_is_missing_is_named_with_what_to_do(state: LogState, name: str, found: str, to_do: str) -> None:
    ((only, need),) = unmet(state).items()
    assert only == name
    assert found in need.found
    assert to_do in need.to_do
    assert not need.advice


def test_a_slot_that_is_ours_already_needs_no_free_one() -> None:
    assert unmet(replace(GOOD, slots_used=10, slot=OURS)) == {}


def test_an_end_to_idle_slots_is_advised_where_the_server_knows_it() -> None:
    assert unmet(replace(GOOD, idle_timeout="0"))["idle_replication_slot_timeout"].advice
    assert unmet(replace(GOOD, idle_timeout=None)) == {}


def test_each_table_that_is_not_told_of_as_a_whole_is_named() -> None:
    tables = {"payment": LogTable(published=True, obstacle="has no primary key")}
    found = unmet(replace(GOOD, tables=tables))
    assert {name: need.found for name, need in found.items()} == {
        "table design": "is missing",
        "table payment": "has no primary key",
    }
    found = unmet(replace(GOOD, tables={**GOOD.tables, "design": LogTable(published=False, obstacle=None)}))
    assert {name: need.to_do for name, need in found.items()} == {
        "table design": "Run deploy/sql/source_log.sql as the owner of ToteSys."
    }


def test_what_a_missing_publication_says_is_not_said_again_of_each_table() -> None:
    tables = {
        "design": LogTable(published=False, obstacle=None),
        "payment": LogTable(published=False, obstacle="has no primary key"),
    }
    found = unmet(replace(GOOD, publication=None, whole=False, tables=tables))
    assert list(found) == ["publication", "table payment"]


@pytest.mark.parametrize(
    ("provider", "level", "keep"),
    [
        ("rds", "rds.logical_replication = 1 in the parameter group and reboot", "in the parameter group"),
        ("aurora", "rds.logical_replication = 1 in the cluster's parameter group", "in the cluster's parameter group"),
        ("cloudsql", "flag cloudsql.logical_decoding = on", "leave TOTESYS_LOG off"),
        ("supabase", "Supabase sets wal_level", "supabase postgres-config update"),
    ],
)
def test_a_managed_server_has_its_own_ways(provider: str, level: str, keep: str) -> None:
    found = unmet(replace(GOOD, provider=provider, wal_level="replica", keep_bytes=None, door="missing"))
    assert level in found["wal_level"].to_do
    assert keep in found["max_slot_wal_keep_size"].to_do
    assert ("ALTER USER postgres WITH REPLICATION" in found["door"].to_do) == (provider == "cloudsql")


def test_the_schema_is_named_in_what_to_run() -> None:
    (door,) = [need for need in needs(replace(GOOD, door="missing"), TABLES, "The office") if need.name == "door"]
    assert "psql -v schema='The office' -f deploy/sql/source_log.sql" in door.to_do
