"""The ports that programs of the platform listen on: finding a free one, and saying who has one that is not.

Belongs here: looking. Does not belong here: listening.
"""

import errno
import socket
from contextlib import suppress
from pathlib import Path

import psutil

from totesys_assets.errors import PlatformError
from totesys_assets.live.session import HOST, MARK


def require_free_port(port: int, command: str = "totesys up --port", host: str = HOST) -> None:
    """Raise PlatformError if a program listens on ``port``: it says which, and the command that chooses another."""
    if _is_free(port, host):
        return
    user = _listener(port)
    is_ours = user.startswith("totesys")
    choose = f"Open http://{host}:{port}, or choose another" if is_ours else "Choose another"
    raise PlatformError(f"Port {port} is in use by {user}. {choose}: {command} {port + 1}.")


def _listener(port: int) -> str:
    """What listens on ``port``, as far as this user may know."""
    with suppress(psutil.Error, OSError):  # macOS tells only the superuser
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr[1:2] == (port,) and each.pid is not None:
                process = psutil.Process(each.pid)
                if home := process.environ().get(MARK):
                    return f"totesys up of {home}"
                line = process.cmdline()
                own = [number for number, word in enumerate(line) if Path(word).name == "totesys"]
                return f"totesys {line[own[0] + 1]}" if own else f"another program, {process.name()} ({each.pid})"
    return "another program"


def free_port(wanted: int) -> int:
    """``wanted`` if no other program listens there, else some port that is free."""
    if _is_free(wanted, HOST):
        return wanted
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int, host: str) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise PlatformError(f"Nothing can listen on {host}, port {port}: {error.strerror}.") from None
            return False
    return True
