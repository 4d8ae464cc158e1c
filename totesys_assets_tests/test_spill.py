"""The folder for temporary files: where it is full, gone or closed, one sentence names it and says what to do."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import duckdb
import pyarrow as pa
import pytest
from click.testing import CliRunner

from totesys_assets import engine
from totesys_assets.commands import edge, main
from totesys_assets.errors import PlatformError, TemporaryFilesFailed
from totesys_assets.lake import storage, written
from totesys_assets.lake.storage import _Bucket
from totesys_assets.lake.tables import Lake
from totesys_assets.lake.written import Writer, write
from totesys_assets.spool import Spool
from totesys_assets_tests.conftest import Platform

SCHEMA = pa.schema([pa.field("bytes", pa.binary())])
RANDOM = pa.RecordBatch.from_pylist([{"bytes": os.urandom(2_000_000)}], SCHEMA)
FULL = ", the folder for temporary files, is full: free some, or set TMPDIR to one with more room"
GONE = ", the folder for temporary files, fails: no such file or directory. Set TMPDIR to one that can be written"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of this process."""
    made = tmp_path / "temporary"
    made.mkdir()
    monkeypatch.setenv("TMPDIR", str(made))
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    return made


class Full(_Bucket):
    """A bucket whose files wait on a disk that is full."""

    def create(self, path: str) -> pa.NativeFile:
        return pa.OSFile("/dev/full", "wb")


def test_files_for_a_bucket_that_find_no_room_are_not_said_to_be_the_lakes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Lake(str(tmp_path / "lake")).open_plain("noise", SCHEMA, "noise")
    monkeypatch.setattr(written, "storage_of", lambda _: Full("s3://bucket/lake"))
    with pytest.raises(TemporaryFilesFailed, match=f"^{folder}{FULL}"):
        write(table, [RANDOM] * 10, SCHEMA)


def test_batches_that_find_no_room_are_told_and_those_of_a_folder_that_is_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.MonkeyPatch.context() as patch, Path("/dev/full").open("w+b", buffering=0) as full:
        patch.setattr(tempfile, "TemporaryFile", lambda *_, **__: full)
        with Spool(SCHEMA) as spool, pytest.raises(TemporaryFilesFailed, match=f"^{folder}{FULL}. The next refresh"):
            spool.add(RANDOM)
    shutil.rmtree(folder)
    with Spool(SCHEMA) as spool, pytest.raises(TemporaryFilesFailed, match=f"^{folder}{GONE}. The next refresh"):
        spool.add(RANDOM)


def test_a_duckdb_that_cannot_spill_says_so(folder: Path) -> None:
    rows = "SELECT number, md5('x' || number) AS text FROM range(600_000) AS t(number)"
    own = folder / "totesys-duckdb-of-this-test"  # for this process has a folder elsewhere
    for setting, said in (("SET max_temp_directory_size = '1MB'", FULL), (f"SET temp_directory = '{own}/0'", GONE)):
        with duckdb.connect() as alone:
            alone.execute("SET memory_limit = '20MB'; SET threads = 1")
            alone.execute(f"SET temp_directory = '{own}'; {setting}")
            with (
                pytest.raises(PlatformError, match=f"^It failed: {folder}{said}.$"),
                engine.readable_errors("It failed"),
            ):
                alone.execute(f"CREATE TABLE a AS {rows}")


@pytest.mark.refreshed
def test_a_refresh_whose_folder_is_gone_names_it_the_variable_and_what_to_do(platform: Platform, folder: Path) -> None:
    platform.sql("UPDATE design SET design_name = 'Linen'")
    shutil.rmtree(folder)
    result = CliRunner().invoke(main, ["refresh"])
    said = " ".join(result.output.split())
    assert (result.exit_code, said.count(f"✗ {folder}{GONE}.")) == (1, 1), said
    assert "Errno" not in said
    folder.mkdir()
    assert CliRunner().invoke(main, ["refresh"]).exit_code == 0


def test_that_no_folder_at_all_can_be_written_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/no/where"])
    with pytest.raises(FileNotFoundError) as none:
        tempfile.gettempdir()
    assert edge.sentence(none.value).startswith("No folder can be written for temporary files: set TMPDIR to one that")


def test_a_variable_that_was_passed_over_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/no/where")
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError) as gone:
        tempfile.mkdtemp()
    assert "fails (TMPDIR names /no/where, which could not be written): no such file" in edge.sentence(gone.value)


def test_what_is_missing_beside_it_is_not_taken_for_a_temporary_file(folder: Path) -> None:
    error = FileNotFoundError(2, "x", str(folder / "home"))
    assert edge.sentence(error) == f"{folder}/home: no such file or directory."


class Sent(_Bucket):
    """A bucket that takes every file; and what waited to be sent each time, to whichever."""

    waited: ClassVar[list[int]] = []

    @contextmanager
    def _answers(self) -> Iterator[Any]:
        yield SimpleNamespace(upload_file=lambda *_, **__: self.waited.append(sum(map(storage._size, storage._unsent))))

    def _require_seen(self, path: str) -> None:
        """It is there."""


def test_all_writers_together_have_no_more_waiting_for_a_bucket_than_there_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Lake(str(tmp_path / "lake")).open_plain("noise", SCHEMA, "noise")
    monkeypatch.setattr(written, "storage_of", lambda _: Sent("s3://bucket/lake"))
    monkeypatch.setattr(written, "_WAITING_BYTES", 1)  # so each batch is written at once
    monkeypatch.setattr(storage, "_ON_DISK_BYTES", 5_000_000)
    writers = [Writer(table, SCHEMA) for _ in range(3)]
    for _ in range(6):
        for writer in writers:
            writer.write(RANDOM)
    assert max(Sent.waited) < 8_000_000  # one batch more than there may be, of 36 MB in all
    for writer in writers:
        writer.close()
    assert storage._unsent == {}
