"""Settings: what the environment says about where things are.

Belongs here: reading the environment. Does not belong here: what the variables mean (variables.py), what a value may
be (setting_values.py), and opening anything.
Values are read when asked for, never at import; URLs hold passwords and are kept out of ``repr``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from totesys_assets import setting_values as values
from totesys_assets import variables
from totesys_assets.errors import SettingsError
from totesys_assets.variables import (
    FIRST_DAY,
    FIRST_DAY_FILE,
    IGNORE,
    LEAST_RECORD_DAYS,
    LOG_FILE,
    OFF,
    ON,
    STOP,
    VARIABLES,
)

# Other variables that the platform reads have names like those of other programs: FILES_URL is no misspelt FILES_URI.
_OURS = ("TOTESYS_", "WAREHOUSE_", "LAKE_")


@dataclass(frozen=True)
class Settings:
    """Where the source, the lake, the warehouse and the local state are. ``None`` means embedded."""

    home: Path
    lake_uri: str
    warehouse_schema: str
    totesys_url: str | None = field(default=None, repr=False)
    warehouse_url: str | None = field(default=None, repr=False)
    first_day: date = FIRST_DAY
    allow_superuser: bool = False
    alert_topic: str | None = None
    ui_url: str | None = None
    stale_minutes: int = variables.STALE_MINUTES
    record_days: int = variables.RECORD_DAYS
    range_rows: int = variables.RANGE_ROWS
    totesys_schema: str = "public"
    new_columns: str = IGNORE
    rates_archive: Path | None = None
    warehouse_reader_url: str | None = field(default=None, repr=False)
    files_uri: str = "files"
    rates_url: str | None = None
    api_keys: tuple[str, ...] = ()
    follows_log: bool = False
    engine: str = variables.DUCKDB
    spark_remote: str | None = field(default=None, repr=False)

    @property
    def superuser_allowed(self) -> bool:
        """Whether the login on ToteSys may be a superuser: so set, or that of the embedded one, which is ours."""
        return self.allow_superuser or self.totesys_url is None

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read TOTESYS_URL, WAREHOUSE_URL, LAKE_URI, TOTESYS_HOME and the others in VARIABLES.

        Raises SettingsError for a value that cannot be one of its kind, and for a name that seems to be misspelt.
        """
        env = os.environ if env is None else env
        _refuse_misspelt(env)
        home = values.folder("TOTESYS_HOME", env.get("TOTESYS_HOME") or ".totesys")
        totesys_url = env.get("TOTESYS_URL") or None
        lake_uri = _lake_uri(env.get("LAKE_URI") or None, home)
        # A lake that was begun in the home keeps its first day, whichever ToteSys is named.
        is_noted = totesys_url is None or (lake_uri == str(home / "lake") and Path(lake_uri).exists())
        return cls(
            home=home,
            lake_uri=lake_uri,
            warehouse_schema=values.schema_name(env.get("WAREHOUSE_SCHEMA") or "public", "WAREHOUSE_SCHEMA"),
            totesys_url=values.database_url("TOTESYS_URL", totesys_url),
            totesys_schema=values.source_schema(env.get("TOTESYS_SCHEMA") or None, totesys_url),
            new_columns=values.choice("TOTESYS_NEW_COLUMNS", env.get("TOTESYS_NEW_COLUMNS") or IGNORE, (IGNORE, STOP)),
            rates_archive=values.file("TOTESYS_RATES_ARCHIVE", env.get("TOTESYS_RATES_ARCHIVE") or None),
            files_uri=values.place(env.get("FILES_URI") or str(home / "files"), "FILES_URI"),
            rates_url=values.rates_url(env.get("TOTESYS_RATES_URL") or None),
            api_keys=values.hashes(env.get("TOTESYS_API_KEYS") or ""),
            follows_log=_follows_log(env.get("TOTESYS_LOG"), home, embedded=totesys_url is None),
            warehouse_url=values.database_url("WAREHOUSE_URL", env.get("WAREHOUSE_URL") or None),
            warehouse_reader_url=values.database_url("WAREHOUSE_READER_URL", env.get("WAREHOUSE_READER_URL") or None),
            first_day=_first_day(env.get("TOTESYS_FIRST_DAY"), home, is_noted=is_noted),
            allow_superuser=values.switch("TOTESYS_ALLOW_SUPERUSER", env.get("TOTESYS_ALLOW_SUPERUSER")),
            alert_topic=values.topic(env.get("TOTESYS_ALERT_TOPIC") or None),
            ui_url=values.ui_url(env.get("TOTESYS_UI_URL") or None),
            stale_minutes=values.number(env, "TOTESYS_STALE_MINUTES", variables.STALE_MINUTES, "minutes"),
            record_days=values.number(
                env, "TOTESYS_RECORD_DAYS", variables.RECORD_DAYS, "days", LEAST_RECORD_DAYS, "0"
            ),
            range_rows=values.number(env, "TOTESYS_RANGE_ROWS", variables.RANGE_ROWS, "rows", besides="0"),
            engine=values.choice("TOTESYS_ENGINE", env.get("TOTESYS_ENGINE") or variables.DUCKDB, variables.ENGINES),
            spark_remote=env.get("SPARK_REMOTE") or None,
        )


def _lake_uri(value: str | None, home: Path) -> str:
    return values.lake_uri(str(home / "lake"), "TOTESYS_HOME") if value is None else values.lake_uri(value)


def _refuse_misspelt(env: Mapping[str, str]) -> None:
    """Raise SettingsError for a name that differs by one slip from a variable of ours that is not set."""
    names = {each.name for each in VARIABLES}
    unset = sorted(name for name in names if name.startswith(_OURS) and not env.get(name))
    for name in sorted(name for name, value in env.items() if value and name not in names):
        for meant in unset:
            if _is_slip(name, meant):
                raise SettingsError(
                    f"{name} is set, which the platform does not read, and {meant} is not: rename it, or unset it if "
                    "it is for another program."
                )


def _is_slip(name: str, meant: str) -> bool:
    """Whether ``name`` is ``meant`` with one letter replaced, added or left out, or with two letters swapped."""
    pairs = enumerate(zip(name, meant, strict=False))
    begin = next((place for place, pair in pairs if len({*pair}) > 1), min(len(name), len(meant)))
    one, other = name[begin:], meant[begin:]
    is_swapped = one[:2] == other[:2][::-1] and one[2:] == other[2:]
    return is_swapped or one[1:] in (other[1:], other) or one == other[1:]


def _first_day(value: str | None, home: Path, *, is_noted: bool) -> date:
    noted, said_by = home / FIRST_DAY_FILE, "TOTESYS_FIRST_DAY"
    if not value and is_noted and noted.exists():
        said_by, value = str(noted), noted.read_text(encoding="ascii").strip()
    if not value:
        return FIRST_DAY
    try:
        first = date.fromisoformat(value)
    except ValueError:
        raise SettingsError(f"{said_by} is {value!r}: set it to a date such as {FIRST_DAY}.") from None
    if not variables.EARLIEST_DAY <= first <= datetime.now(UTC).date():
        why = "a day to come" if first > FIRST_DAY else f"before {variables.EARLIEST_DAY}, which no shop needs"
        raise SettingsError(f"{said_by} is {first}, {why}: set it to the day of the first rows of ToteSys.")
    return first


def _follows_log(value: str | None, home: Path, *, embedded: bool) -> bool:
    if not value:
        return embedded and (home / LOG_FILE).exists()
    return values.choice("TOTESYS_LOG", value, (OFF, ON)) == ON
