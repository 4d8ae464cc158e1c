"""A stand-in for ``docker``, for deploy/small/manage.sh: what would run in a container runs on this machine.

Belongs here: which program a container would be asked to run, and how it finds the server and the bucket. Does not
belong here: what Compose makes of its files (test_small.py asks Compose itself).

PostgreSQL's programs, ``totesys`` and ``caddy`` are the real ones. The rest is noted in ``calls``, a line each. A call
that has the words of ``fails`` in it writes half of what it would write, and fails.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_SHIM = """#!{python}
import json, os, subprocess, sys
from pathlib import Path

here = Path(__file__).parent
told = json.loads((here / "docker.json").read_text())
words = sys.argv[1:]
with open(here / "calls", "a") as calls:
    calls.write(" ".join(words) + "\\n")
if words[0] != "compose":
    sys.exit(0)
words.pop(0)
files = []
while words[0].startswith("--"):
    name, value = words.pop(0), words.pop(0)
    files += [value] if name == "--env-file" else []
settings = dict(line.split("=", 1) for file in files for line in open(file).read().splitlines() if "=" in line)
command = words.pop(0)
if told["fails"] and told["fails"] in " ".join([command, *words]):
    if "pg_dump" in words:
        sys.stdout.write("PGDMP half a dump")
    sys.exit(1)

def run(words, **more):
    return subprocess.run(words, env={**os.environ, **told["environment"], **more}).returncode

def login(name, database):
    return f"postgresql://{name}:{settings[name.upper() + '_PASSWORD']}@{told['server']}/{database}"

if command in ("exec", "run"):
    while words[0].startswith("-"):
        words.pop(0)
    service, *words = words
    if service == "daemon":
        sys.exit(run(
            words,
            TOTESYS_URL=settings["TOTESYS_URL"],
            LAKE_URI=settings["LAKE_URI"],
            WAREHOUSE_URL=login("warehouse_loader", "warehouse"),
            TOTESYS_DAGSTER_URL=login("dagster", "dagster"),
        ))
    sys.exit(run(words))
if command == "up" and words[-1] != "postgres":
    sys.exit(run(
        ["totesys", "provision", "--sql", told["sql"]],
        WAREHOUSE_ADMIN_URL=f"postgresql://{told['server']}/postgres",
        WAREHOUSE_OWNER_URL=login("warehouse_owner", "warehouse"),
        WAREHOUSE_URL=login("warehouse_loader", "warehouse"),
        WAREHOUSE_READER_URL=login("warehouse_reader", "warehouse"),
        TOTESYS_DAGSTER_URL=login("dagster", "dagster"),
    ))
if command == "ps" and "--format" in words:
    print(told["health"].get(words[-1], "healthy"))
"""


@dataclass
class Docker:
    """``docker`` in ``folder``; its PostgreSQL is at ``server`` (host:port), its containers know ``environment``."""

    folder: Path
    server: str
    environment: Mapping[str, str]
    sql: Path
    fails: str = ""
    health: Mapping[str, str] | None = None

    def write(self) -> None:
        """Lay it down, or bring it to what its fields say now."""
        shim = self.folder / "docker"
        shim.write_text(_SHIM.replace("{python}", sys.executable), encoding="utf-8")
        shim.chmod(0o755)
        host, _, port = self.server.partition(":")
        known = {
            **self.environment,
            "PGHOST": host,
            "PGPORT": port,
            "PGUSER": "postgres",
            "PATH": f"{Path(sys.executable).parent}:{self.environment['PATH']}:{os.environ['PATH']}",
        }
        told = {
            "server": self.server,
            "environment": known,
            "sql": str(self.sql),
            "fails": self.fails,
            "health": self.health or {},
        }
        (self.folder / "docker.json").write_text(json.dumps(told), encoding="utf-8")

    @property
    def calls(self) -> list[str]:
        """What it was asked for, in order."""
        file = self.folder / "calls"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []
