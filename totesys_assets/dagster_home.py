"""Dagster's folder, DAGSTER_HOME: where it is, and the configuration of the instance in it.

Belongs here: which folder it is, and what every process of the platform sets before it opens Dagster's instance. Does
not belong here: the database that the instance keeps its records in (databases.py).
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from importlib import resources
from pathlib import Path

from totesys_assets.errors import SettingsError
from totesys_assets.settings import Settings

DAGSTER_URL_VARIABLE = "TOTESYS_DAGSTER_URL"
# Where the parts of the instance were before they moved to dagster_internals/.
_FORMER_MODULES = ("totesys_assets.dagster_storage", "totesys_assets.launch.")


# What Dagster reads nowhere else, in every process of the platform; the image sets the same.
ENVIRONMENT = {
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    # Events are stored in batches: a full load of two years is 9,000 materialisations.
    "DAGSTER_EVENT_BATCH_SIZE": "1000",
    # A sensor may look for as long as ToteSys may be asked. After Dagster's minute the next tick would begin another
    # look beside the first, which goes on: of many hundred million rows none would ever end.
    "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": "3600",
}


def instance_config() -> str:
    """The text of dagster.yaml, which reads the database's URL from DAGSTER_URL_VARIABLE."""
    return resources.files("totesys_assets").joinpath("dagster.yaml").read_text(encoding="utf-8")


def named_folder(settings: Settings) -> Path | None:
    """The folder of a Dagster instance that DAGSTER_HOME names.

    None if it is not set, or names the folder in the home and that is not there yet. Raises SettingsError where Dagster
    could not use what it names.
    """
    named = os.environ.get("DAGSTER_HOME")
    if not named:
        return None
    folder = Path(named)
    with suppress(RuntimeError, OSError):  # there is no such user; it is too long, or may not be looked at
        folder = folder.expanduser()  # as Dagster does
        if folder.is_absolute() and folder.is_dir():
            return folder
        if folder.is_absolute() and _is_ours(folder, settings):
            return None
    raise SettingsError(
        f'DAGSTER_HOME is "{named}". It must be the absolute path of an existing folder, that of a Dagster instance of '
        "yours. If it is not set, Dagster's folder is in TOTESYS_HOME."
    )


def needs_records(settings: Settings) -> bool:
    """Whether Dagster's records are to be embedded: in the folder in the home, whose file asks for their URL.

    Raises SettingsError as ``named_folder`` does.
    """
    named = named_folder(settings)
    if named is None:
        return True
    if not _is_ours(named, settings) or DAGSTER_URL_VARIABLE in os.environ:
        return False
    file = named / "dagster.yaml"
    return not file.exists() or DAGSTER_URL_VARIABLE in file.read_text(encoding="utf-8")


def dagster_home(settings: Settings, url: str | None) -> Path:
    """Dagster's folder: DAGSTER_HOME if set, else one in the home, configured for the embedded PostgreSQL.

    ``url`` is that of the embedded database for Dagster's records; None if they are elsewhere. The file in the home is
    brought up to date, unless DAGSTER_HOME names that folder and the file fits this version. Sets the environment so
    that this process, and those that it starts, use it. Raises SettingsError as ``named_folder`` does.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    folder, named = (settings.home / "dagster").absolute(), named_folder(settings)
    is_ours = named is None or _is_ours(named, settings)
    if named is None and url is not None:
        os.environ[DAGSTER_URL_VARIABLE] = url
    elif is_ours and url is not None:
        os.environ.setdefault(DAGSTER_URL_VARIABLE, url)  # somebody may have named the folder, and a database for it
    if named is not None and not (is_ours and _names_former_modules(folder)):
        folder = named
    else:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "dagster.yaml", instance_config())
    os.environ["DAGSTER_HOME"] = str(folder)
    return folder


def _is_ours(folder: Path, settings: Settings) -> bool:
    """Whether it is the folder in the home, however it is spelled."""
    return os.path.realpath(folder) == os.path.realpath(settings.home / "dagster")


def _write(file: Path, text: str) -> None:
    """Write the file, if it says something else, in one step: other processes may be opening their instance."""
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    fresh = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)


def _names_former_modules(folder: Path) -> bool:
    file = folder / "dagster.yaml"
    return file.exists() and any(name in file.read_text(encoding="utf-8") for name in _FORMER_MODULES)
