"""The ports that programs of the platform listen on: finding a free one, and saying who has one that is not.

Belongs here: looking. Does not belong here: listening.
"""

import errno
import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise
from pathlib import Path

import psutil

from totesys_assets.errors import PlatformError
from totesys_assets.live.session import HOST, MARK

# Addresses that stand for all of this machine.
_ALL = (str(IPv4Address(0)), str(IPv6Address(0)))
_HIGHEST = 65535
# The commands that listen on a port.
_SERVERS = ("api", "dashboard", "up")


def require_free_port(port: int, command: str, host: str = HOST, shown_by: Path | None = None) -> None:
    """Raise PlatformError if a program listens on ``port``: it says which, and the command that chooses another.

    ``shown_by``: the home whose ``totesys up`` shows the same on its port.
    """
    if _is_free(port, host):
        return
    user = _listener(port, host)
    choose = f"Open http://{HOST}:{port}, or choose" if user == _up(str(shown_by)) else "Choose"
    other = f"{port + 1 if port < _HIGHEST else port - 1}{'' if host == HOST else f' --host {host}'}"
    raise PlatformError(f"Port {port} is in use by {user}. {choose} another: {command} {other}.")


def url_of(host: str, port: int) -> str:
    """Where to open on this machine what listens on ``port`` of the address ``host``."""
    at = host
    with suppress(ValueError):  # a name
        if (address := ip_address(host)).is_unspecified:
            at = HOST if address.version == 4 else "::1"
    return f"http://{f'[{at}]' if ':' in at else at}:{port}"


def _listener(port: int, host: str) -> str:
    """What listens on ``port`` of an address, as far as this user may know."""
    with suppress(psutil.Error, OSError):  # macOS tells only the superuser
        for each in psutil.net_connections("tcp"):
            is_there = each.status == psutil.CONN_LISTEN and each.laddr in [(at, port) for at in (host, *_ALL)]
            if is_there and each.pid is not None:
                return _name(psutil.Process(each.pid))
    return "another program"


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error, OSError):  # it is another user's
        if home := process.environ().get(MARK):
            return _up(home)
    line = process.cmdline()[:3]  # of which the first may be Python
    own = [command for word, command in pairwise(line) if Path(word).name == "totesys" and command in _SERVERS]
    return f"totesys {own[0]}" if own else f"another program, {process.name()} ({process.pid})"


def _up(home: str) -> str:
    return f"totesys up of {home}"


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
