"""Dagster's folder in the home: written by the platform, unless somebody wants another."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from totesys_assets.commands import main
from totesys_assets.dagster_home import DAGSTER_URL_VARIABLE, ENVIRONMENT, dagster_home, instance_config, needs_records
from totesys_assets.errors import SettingsError
from totesys_assets.settings import Settings

URL = "postgresql://dagster"
# As the version wrote it in which the storages were a module of the package.
FORMER = "run_storage: {module: totesys_assets.dagster_storage, class: PooledRunStorage}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Dagster's folder in a home, with the file of the version before in it."""
    for name in ("DAGSTER_HOME", DAGSTER_URL_VARIABLE):
        monkeypatch.setenv(name, "")  # so that what the function sets is undone
        monkeypatch.delenv(name)
    made = tmp_path / "dagster"
    made.mkdir()
    (made / "dagster.yaml").write_text(FORMER, encoding="utf-8")
    return made


def settings(folder: Path) -> Settings:
    return Settings.from_env({"TOTESYS_HOME": str(folder.parent)})


def test_the_file_of_the_version_before_is_written_anew(folder: Path) -> None:
    assert dagster_home(settings(folder), URL) == folder
    assert (folder / "dagster.yaml").read_text(encoding="utf-8") == instance_config()
    assert os.environ["DAGSTER_HOME"] == str(folder)
    assert os.environ[DAGSTER_URL_VARIABLE] == URL


def test_it_is_written_anew_also_where_dagster_home_names_the_folder_in_the_home(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    assert dagster_home(settings(folder), URL) == folder
    assert (folder / "dagster.yaml").read_text(encoding="utf-8") == instance_config()
    assert os.environ[DAGSTER_URL_VARIABLE] == URL


def test_a_file_that_dagster_home_names_is_left_as_it_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "dagster.yaml").write_text(FORMER, encoding="utf-8")
    monkeypatch.setenv("DAGSTER_HOME", str(own))
    assert dagster_home(settings(folder), URL) == own
    assert (own / "dagster.yaml").read_text(encoding="utf-8") == FORMER
    (folder / "dagster.yaml").write_text("# mine", encoding="utf-8")
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    assert dagster_home(settings(folder), URL) == folder
    assert (folder / "dagster.yaml").read_text(encoding="utf-8") == "# mine"


@pytest.mark.parametrize("named", ["relative", "home/dagster", "/does/not/exist", __file__])
@pytest.mark.parametrize("command", ["refresh", "up", "status"])
def test_a_folder_that_dagster_could_not_use_is_refused_before_anything_is_started(
    named: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for variable in ("TOTESYS_URL", "WAREHOUSE_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TOTESYS_HOME", str(home))
    monkeypatch.setenv("DAGSTER_HOME", named)
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(main, [command])
    assert ended.exit_code != 0
    assert f'DAGSTER_HOME is "{named}". It must be' in ended.output
    assert not (home / "postgres").exists()


def test_a_folder_is_expanded_as_dagster_does_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", "~/own")
    assert dagster_home(settings(folder), URL) == tmp_path / "own"
    monkeypatch.setenv("DAGSTER_HOME", "~no_such_user/own")
    with pytest.raises(SettingsError, match="~no_such_user/own"):
        dagster_home(settings(folder), URL)


def test_the_folder_in_the_home_is_made_also_where_dagster_home_names_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(folder)
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    assert dagster_home(settings(folder), URL) == folder
    assert (folder / "dagster.yaml").read_text(encoding="utf-8") == instance_config()


@pytest.mark.parametrize("spelled", ["{home}/dagster", "{home}/dagster/", "{home}/../{name}/dagster", "{home}/link"])
def test_the_folder_in_the_home_has_its_embedded_records_however_it_is_spelled(
    spelled: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = folder.parent
    (home / "link").symlink_to(folder)
    (folder / "dagster.yaml").write_text(instance_config(), encoding="utf-8")
    monkeypatch.setenv("DAGSTER_HOME", spelled.format(home=home, name=home.name))
    assert needs_records(settings(folder))
    dagster_home(settings(folder), URL)
    assert os.environ[DAGSTER_URL_VARIABLE] == URL
    assert not needs_records(settings(folder))  # it has them now


def test_a_database_that_somebody_names_for_the_folder_in_the_home_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    (folder / "dagster.yaml").write_text("# mine: in SQLite", encoding="utf-8")
    assert not needs_records(settings(folder))
    monkeypatch.setenv(DAGSTER_URL_VARIABLE, "postgresql://mine")
    dagster_home(settings(folder), URL)
    assert os.environ[DAGSTER_URL_VARIABLE] == "postgresql://mine"


def test_a_path_that_is_too_long_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", f"/{'a' * 5000}")
    with pytest.raises(SettingsError, match=r"^DAGSTER_HOME is"):
        needs_records(settings(folder))


def test_a_file_that_is_up_to_date_is_not_written_again(folder: Path) -> None:
    dagster_home(settings(folder), URL)
    before = (folder / "dagster.yaml").stat()
    dagster_home(settings(folder), URL)
    assert (folder / "dagster.yaml").stat() == before
    assert [each.name for each in folder.iterdir()] == ["dagster.yaml"]


def test_an_empty_variable_names_no_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    assert dagster_home(settings(folder), URL) == folder


def test_a_tick_of_a_sensor_is_given_as_long_as_it_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name)
    dagster_home(settings(folder), URL)
    assert {name: os.environ[name] for name in ENVIRONMENT} == ENVIRONMENT
    asked = "from dagster._grpc.client import DEFAULT_SENSOR_GRPC_TIMEOUT as seconds; print(seconds)"
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert said == f"{ENVIRONMENT['DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS']}\n"
