"""``totesys log``: what a source must offer, and the end of our slot there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner

from totesys_assets.commands import main
from totesys_assets.databases import databases
from totesys_assets.lake.tables import JOURNAL, Lake
from totesys_assets.local import sql_files
from totesys_assets.platform import slot_of
from totesys_assets.settings import Settings
from totesys_assets.source.totesys.log import Log, slot_name
from totesys_assets_tests.conftest import Platform
from totesys_assets_tests.test_roles import execute


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["log", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def home(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A small embedded home, as a version made it that knew of no log."""
    folder = scratch / "home_of_the_log"
    settings = Settings.from_env({"TOTESYS_HOME": str(folder)})
    monkeypatch.setenv("TOTESYS_HOME", str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("totesys_assets.databases._LOG", {})
        patch.setattr(sql_files, "sql_folder", lambda: Path("/nowhere"))
        with databases(settings, scale=0.01) as urls:
            assert execute(urls.totesys, "SHOW wal_level") == [("replica",)]
            assert execute(urls.totesys, "SELECT 1 FROM pg_publication") == []
    yield settings
    shutil.rmtree(folder, ignore_errors=True)


def test_a_home_of_an_older_version_offers_its_log_from_the_next_start_on(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = run("check")
    assert (code, "✗" in text, "!" in text) == (0, False, False), text
    assert "wal_level: logical" in text
    assert "tables: all 11 are published as a whole" in text
    assert text.endswith("✓ The log can be followed. It is not yet: set TOTESYS_LOG=on.\n")
    monkeypatch.setenv("TOTESYS_LOG", "on")
    assert run("check")[1].endswith("✓ The log can be followed.\n")


def test_the_door_is_made_once_for_each_version_of_its_file(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with databases(home, dagster=False) as urls:
        execute(urls.totesys, "DROP FUNCTION totesys_log.forget")
        with Log(urls.totesys, "x") as log:
            with databases(home, dagster=False):
                assert log.state().door == "missing"
            changed = tmp_path / "source_log.sql"
            changed.write_bytes((sql_files.sql_folder() / changed.name).read_bytes() + b"\n")
            monkeypatch.setattr(sql_files, "sql_folder", lambda: tmp_path)
            with databases(home, dagster=False):
                assert log.state().door == "open"


def test_a_source_that_offers_nothing_is_told_all_that_it_lacks(platform: Platform) -> None:
    code, text = run("check")
    assert code == 1
    for said in (
        "✓ primary",
        "✗ wal_level: replica. Set wal_level",
        "✗ max_slot_wal_keep_size: no limit",
        "✗ door: mis",
    ):
        assert said in text
    assert "is not published" not in text  # which the missing publication says for all of them
    assert "The log cannot be followed yet: see wal_level, max_slot_wal_keep_size, door, publication above." in text
    assert platform.totesys_url.partition("@")[0].rpartition(":")[2] not in text  # the password


@pytest.mark.refreshed
def test_a_refresh_and_status_say_in_whole_sentences_why_the_log_is_not_followed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(command: str) -> str:
        return " ".join(CliRunner().invoke(main, [command]).output.split())

    platform.sql("UPDATE design SET design_name = 'Linen'")
    assert "log" not in said("refresh")
    monkeypatch.setenv("TOTESYS_LOG", "on")
    why = 'The log of ToteSys is closed to the login of TOTESYS_URL: schema "totesys_log" does not exist. '
    assert f"! The log of ToteSys is not followed, and tables are compared: {why}`totesys log check` says" in said(
        "refresh"
    )
    assert f"{why}`totesys log check` says what is missing. Tables are compared" in said("status")


def test_status_says_what_is_missing_before_anything_was_tried(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOTESYS_LOG", "on")
    said = " ".join(CliRunner().invoke(main, ["status"]).output.split())
    assert "says what is missing: wal_level, max_slot_wal_keep_size, door, publication" in said


def test_stop_drops_the_slot_of_this_lake_and_no_other(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("stop") == (0, "✓ Nothing to drop: the log was never followed for this lake.\n")
    lake = Lake(home.lake_uri)
    lake.open_plain(JOURNAL, pa.schema([("n", pa.int32())]), "the journal")
    own, other = slot_of(lake), slot_name("another lake")
    assert own is not None
    with databases(home, dagster=False) as urls:
        for slot in (own, other):
            with Log(urls.totesys, slot) as log:
                log.begin()
        code, text = run("check")
        assert code == 0
        assert f"slot {own}: keeps " in text
        assert f"log stop --slot {other} drops it" in text
        assert run("stop") == (0, f"✓ The slot {own} was dropped.\n")
        assert run("stop") == (0, f"✓ Nothing to drop: there is no slot {own}.\n")
        assert execute(urls.totesys, "SELECT slot_name FROM pg_replication_slots") == [(other,)]
        assert run("stop", "--slot", other) == (0, f"✓ The slot {other} was dropped.\n")
        execute(urls.totesys, "SELECT pg_create_physical_replication_slot('standby')")
        code, text = run("stop", "--slot", "standby")
        assert code == 1
        assert "slot 'standby' is not of a platform" in text
        assert execute(urls.totesys, "SELECT pg_drop_replication_slot('standby')") != []


def test_a_source_that_cannot_be_reached_is_said_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOTESYS_URL", "postgresql://reader:s3cret@127.0.0.1:1/totesys")
    monkeypatch.setenv("TOTESYS_HOME", str(tmp_path))
    code, text = run("check")
    assert (code, "TOTESYS_URL cannot be reached" in text, "s3cret" in text) == (1, True, False)
