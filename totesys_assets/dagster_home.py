"""Dagster's folder, DAGSTER_HOME: where it is, and the configuration of the instance in it.

Belongs here: what every process of the platform sets before it opens Dagster's instance. Does not belong here: the
database that the instance keeps its records in (databases.py).
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from totesys_assets.databases import Databases, named_dagster_home
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


def dagster_home(settings: Settings, urls: Databases) -> Path:
    """Dagster's folder: DAGSTER_HOME if set, else one in the home, configured for the embedded PostgreSQL.

    The file in the home is written anew, unless DAGSTER_HOME names that folder and the file fits this version.
    Sets the environment so that this process, and those that it starts, use it. Raises SettingsError.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    folder = settings.home / "dagster"
    named = named_dagster_home()
    if named is not None and not (named == folder.absolute() and _names_former_modules(folder)):
        return named
    folder.mkdir(parents=True, exist_ok=True)
    if urls.dagster is not None:
        os.environ[DAGSTER_URL_VARIABLE] = urls.dagster
    (folder / "dagster.yaml").write_text(instance_config(), encoding="utf-8")
    os.environ["DAGSTER_HOME"] = str(folder)
    return folder


def _names_former_modules(folder: Path) -> bool:
    file = folder / "dagster.yaml"
    return file.exists() and any(name in file.read_text(encoding="utf-8") for name in _FORMER_MODULES)
