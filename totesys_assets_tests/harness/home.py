"""A newcomer's home: the installed command, run in a folder of its own with embedded servers."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from totesys_assets.databases import embedded
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets.settings import Settings

TOTESYS = str(Path(sys.executable).with_name("totesys"))


class Home:
    """A newcomer's folder, and the command run in it as they would."""

    first: str  # what its first refresh printed

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER_", "TOTESYS_"))}
        self.env = {**clean, "TOTESYS_HOME": str(folder)}
        self.printed = list[str]()  # by every command, of this and of other tests

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run([TOTESYS, *arguments], env=self.env, capture_output=True, text=True, check=False)
        self.printed += [ended.stdout, ended.stderr]
        return ended

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [TOTESYS, *arguments],
            env={**self.env, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def servers(self) -> list[EmbeddedServer]:
        return [*embedded(Settings.from_env(self.env))]  # started by a test, they are as the commands start them

    def processes(self) -> list[str]:
        """Command lines of all processes on the machine that mention the home, or were told of it."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                command = " ".join(process.cmdline())
                if str(self.folder) in command or process.environ().get("TOTESYS_HOME") == str(self.folder):
                    found.append(command)
        return found
