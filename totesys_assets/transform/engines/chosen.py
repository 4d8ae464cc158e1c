"""The engine that the settings name. Without them, nothing of Spark is imported."""

from __future__ import annotations

from urllib.parse import urlsplit

from totesys_assets.errors import SettingsError
from totesys_assets.settings import Settings
from totesys_assets.transform.engines.in_duckdb import InDuckDb
from totesys_assets.transform.engines.interface import Engine
from totesys_assets.variables import DUCKDB


def chosen(settings: Settings) -> Engine:
    """What makes the tables that have days. Raises SettingsError for an address that can be none of a server."""
    if settings.engine == DUCKDB:
        return InDuckDb()
    form = "set it to the address of a Spark Connect server, sc://host:port"
    if settings.spark_remote is None:
        raise SettingsError(f"TOTESYS_ENGINE is spark, and SPARK_REMOTE is not set: {form}, or unset TOTESYS_ENGINE.")
    if not _is_address(settings.spark_remote):
        raise SettingsError(f"SPARK_REMOTE is no such address: {form}.")  # not quoted: it may hold a token
    from totesys_assets.transform.engines.in_spark import InSpark

    return InSpark(settings.spark_remote)


def described(settings: Settings) -> str | None:
    """What a user is told of an engine that is not the default, without secrets: where it is, or what is missing."""
    if settings.engine == DUCKDB:
        return None
    try:
        chosen(settings)
    except SettingsError as missing:
        return f"{settings.engine}, which cannot be used: {missing}"
    from totesys_assets.transform.engines.spark_session import shown

    return f"{settings.engine}, at {shown(str(settings.spark_remote))}"


def _is_address(remote: str) -> bool:
    try:
        parts = urlsplit(remote)
        parts.port  # noqa: B018 - raises ValueError where it is none
    except ValueError:
        return False
    is_plain = "@" not in parts.netloc and (parts.path in ("", "/") or parts.path.startswith("/;"))
    return parts.scheme == "sc" and bool(parts.hostname) and is_plain and not (parts.query or parts.fragment)
