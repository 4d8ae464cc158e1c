"""URLs of databases as libpq reads them: what it adds to them, and what is said where one leads nowhere.

Belongs here: the parts of a URL, and the variables of the environment beside them. Does not belong here: connecting.
"""

from __future__ import annotations

import os

import psycopg.conninfo

from totesys_assets.errors import ConnectionFailed

# A time limit for connecting, where a URL has none.
_CONNECT_TIMEOUT_SECONDS = "10"


def unreachable(variable: str, why: str, url: str | None = None) -> ConnectionFailed:
    """The error of a database that the ``url`` in ``variable`` does not lead to, where that is what failed."""
    what_to_do = "Check the URL and the server"
    if "session is read-only" in why:  # so answers libpq where a role is read-only by default, as that of the source is
        what_to_do = "Its login is read-only by default: ask for target_session_attrs=primary in place of read-write"
    if url is not None and (read := _read_by_libpq(url)):
        what_to_do += f". What the URL does not say was read from the environment: {', '.join(read)}"
    return ConnectionFailed(f"{variable} cannot be reached: {why}. {what_to_do}.")


def _read_by_libpq(url: str) -> list[str]:
    """The variables of the environment that libpq has read for a session with ``url``."""
    said = conninfo(url)
    options = [each for each in psycopg.pq.Conninfo.get_defaults() if each.keyword.decode() not in said]
    return [name for each in options if each.envvar and os.environ.get(name := each.envvar.decode())]


def conninfo(url: str) -> dict[str, str]:
    """Parts of a URL, with a name and a time limit for connecting where it has none of its own.

    What PGOPTIONS says is not asked: where a URL has no options, there are none. Nor is PGHOSTADDR, which would lead
    to another server than the one that a URL names.
    """
    parts = {key: str(value) for key, value in psycopg.conninfo.conninfo_to_dict(url).items()}
    own = {"application_name": "totesys_assets", "connect_timeout": _CONNECT_TIMEOUT_SECONDS, "options": ""}
    if parts.get("host"):
        own["hostaddr"] = ""
    return {**own, **parts}
