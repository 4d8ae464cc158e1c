"""Homes: creating the folder of a platform, and remembering where others are.

Belongs here: the folder itself, and the note of homes in the user's folder for state. Does not belong here: what
is in a home (databases.py).
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from totesys_assets.errors import PlatformError
from totesys_assets.settings import Settings

_MOST_NOTED = 20
_ELSEWHERE = "Set TOTESYS_HOME to a folder that you can write to."


class NoHome(PlatformError):
    """There is no platform in the home, and the command does not create one."""


def make_folder(folder: Path) -> None:
    """Make the folder and those above it, such that the server's user may pass through."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o011)  # others must pass through, whatever root's umask is


def prepare(home: Path) -> None:
    """Create the folder if it is missing. Raises PlatformError if it is a file or cannot be used."""
    if home.exists() and not home.is_dir():
        raise PlatformError(f"The home {home} is a file. {_ELSEWHERE}")
    try:
        make_folder(home)
    except OSError as error:
        raise PlatformError(f"The home {home} cannot be made: {_reason(error)}. {_ELSEWHERE}") from error
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        raise PlatformError(f"The home {home} may not be written to. {_ELSEWHERE}")


def require(home: Path, there: bool) -> None:
    """Raise NoHome, with the known homes, unless it is ``there``."""
    if home.exists() and not home.is_dir():
        raise PlatformError(f"The home {home} is a file. {_ELSEWHERE}")
    if there:
        return
    known = [each for each in noted() if each != home and each.is_dir()]
    there_is = "There is one" if len(known) == 1 else "There are some"
    found = f" {there_is} in {', '.join(map(str, known))}: set TOTESYS_HOME to use it." if known else ""
    raise NoHome(f"There is no platform in {home}, and only refresh, up and simulate create one.{found}")


def require_lake(settings: Settings) -> None:
    """Raise NoHome if the lake should be in a home that does not exist."""
    if Path(settings.lake_uri).is_relative_to(settings.home):
        require(settings.home, settings.home.is_dir())


def remember(home: Path) -> None:
    """Note the home as the newest one, if the note can be written."""
    with suppress(OSError, ValueError, RuntimeError):
        known = noted()
        if known[:1] == [home]:
            return
        file = _file()
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [str(each) for each in [home, *(each for each in known if each != home)]][:_MOST_NOTED]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")


def noted() -> list[Path]:
    """The homes that were noted, the newest first."""
    with suppress(OSError, ValueError, RuntimeError):
        lines = _file().read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        return [Path(line) for line in lines if line]
    return []


def _file() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or ""
    return (Path(state) if Path(state).is_absolute() else Path("~/.local/state").expanduser()) / "totesys" / "homes"


def _reason(error: OSError) -> str:
    said = os.strerror(error.errno or 0)
    return f"{said[:1].lower()}{said[1:]}"
