"""Dagster's folder, DAGSTER_HOME: where it is, and the configuration of the instance in it.

Belongs here: what every process of the platform sets before it opens Dagster's instance. Does not belong here: the
database that the instance keeps its records in (databases.py).
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from totesys_assets.databases import Databases
from totesys_assets.settings import Settings

DAGSTER_URL_VARIABLE = "TOTESYS_DAGSTER_URL"


def instance_config() -> str:
    """The text of dagster.yaml, which reads the database's URL from DAGSTER_URL_VARIABLE."""
    return resources.files("totesys_assets").joinpath("dagster.yaml").read_text(encoding="utf-8")


def dagster_home(settings: Settings, urls: Databases) -> Path:
    """Dagster's folder: DAGSTER_HOME if set, else one in the home, configured for the embedded PostgreSQL.

    Sets the environment so that this process, and those that it starts, use it.
    """
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
    # Events are stored in batches: a full load of two years is 9,000 materialisations.
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "500")
    if "DAGSTER_HOME" in os.environ:
        return Path(os.environ["DAGSTER_HOME"])
    folder = settings.home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    if urls.dagster is not None:
        os.environ[DAGSTER_URL_VARIABLE] = urls.dagster
    (folder / "dagster.yaml").write_text(instance_config(), encoding="utf-8")
    os.environ["DAGSTER_HOME"] = str(folder)
    return folder
