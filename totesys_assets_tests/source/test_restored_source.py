"""A source that was set back: transaction ids are given out a second time, on the same rows, for other content."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from totesys_assets.catalogue.catalogue import ddl
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets_tests.conftest import TRADE, Platform, PostgresServer, make_platform
from totesys_assets_tests.harness.complete import require_complete
from totesys_assets_tests.harness.kills import power_cut
from totesys_assets_tests.harness.servers import copy_owned

# Nothing but the test may use up transaction ids, or write down what is not to be written down yet. What is written
# down survives a killed server without fsync too.
QUIET = {"fsync": "off", "autovacuum": "off", "bgwriter_lru_maxpages": "0", "checkpoint_timeout": "1d"}


@pytest.fixture
def source(scratch: Path) -> Iterator[EmbeddedServer]:
    folder = scratch / "restored"
    server = EmbeddedServer(folder, QUIET)
    server.start()
    server.create_database("totesys")
    with psycopg.connect(server.url("totesys")) as connection:
        connection.execute(ddl("totesys.sql"))
        connection.execute(TRADE)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def platform(source: EmbeddedServer, postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Platform]:
    """A platform over the source, complete."""
    with make_platform(source.url("totesys"), postgres_server.database(), tmp_path) as platform:
        platform.refresh()
        require_complete(platform)
        yield platform


def moved(platform: Platform, source: EmbeddedServer) -> Platform:
    """The platform after its source was started again, on another port."""
    source.start()
    url = source.url("totesys")
    return replace(platform, settings=replace(platform.settings, totesys_url=url), totesys_url=url)


def sell(platform: Platform, units: int) -> str:
    """Change the one order, and say which transaction did."""
    return write(platform, f"UPDATE sales_order SET units_sold = {units}")


def write(platform: Platform, statement: str) -> str:
    """Commit without waiting for it to be written down; returns the transaction that last changed the order."""
    with psycopg.connect(platform.totesys_url, options="-c synchronous_commit=off") as connection:
        connection.execute(statement)
        return xmin(connection)


def xmin(connection: psycopg.Connection[tuple[object, ...]]) -> str:
    rows = connection.execute("SELECT xmin::text FROM sales_order WHERE sales_order_id = 1").fetchall()
    return str(rows[0][0])


def units(platform: Platform) -> int:
    with psycopg.connect(platform.totesys_url) as connection:
        rows = connection.execute("SELECT units_sold FROM sales_order WHERE sales_order_id = 1").fetchall()
    return int(str(rows[0][0]))


def test_a_source_restored_from_a_cold_copy_is_compared_anew(platform: Platform, source: EmbeddedServer) -> None:
    data, copy = source.folder / "data", source.folder / "copy"
    source.stop()
    copy_owned(data, copy)
    platform = moved(platform, source)
    first = sell(platform, 2000)
    write(platform, "UPDATE design SET design_name = 'lost'")  # more is lost than is done anew before the next look
    platform.refresh()
    before = require_complete(platform)

    source.stop()
    shutil.rmtree(data)
    copy.rename(data)
    platform = moved(platform, source)
    assert units(platform) == 1001
    assert sell(platform, 3000) == first
    platform.refresh()
    require_complete(platform, before)


@pytest.mark.thorough
@pytest.mark.parametrize("restart", ["of the machine", "by itself"])
def test_a_source_that_lost_its_last_commits_in_a_crash_is_compared_anew(
    platform: Platform, source: EmbeddedServer, restart: str
) -> None:
    writer = stop_writing_down(platform)
    first = sell(platform, 2000)
    write(platform, "UPDATE design SET design_name = 'lost'")  # more is lost than is done anew before the next look
    platform.refresh()
    before = require_complete(platform)

    if restart == "by itself":
        os.kill(writer, signal.SIGKILL)  # at which the server ends all sessions and starts itself anew
        wait_for_another_writer(platform, writer)
    else:
        power_cut(source.folder)
        os.kill(writer, signal.SIGKILL)
        platform = moved(platform, source)
    assert units(platform) == 1001
    assert sell(platform, 3000) == first
    platform.refresh()
    require_complete(platform, before)


WRITER = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"


def stop_writing_down(platform: Platform) -> int:
    """Stop the process that writes down what is committed without waiting for it; returns its id."""
    with psycopg.connect(platform.totesys_url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        ((writer,),) = connection.execute(WRITER).fetchall()
    os.kill(int(str(writer)), signal.SIGSTOP)
    return int(str(writer))


def wait_for_another_writer(platform: Platform, writer: int) -> None:
    while True:
        try:
            with psycopg.connect(platform.totesys_url, autocommit=True) as connection:
                found = connection.execute(WRITER).fetchall()
        except psycopg.OperationalError:
            found = []
        if found and found != [(writer,)]:
            return
        time.sleep(0.01)
