"""Values of settings: checking one of each kind, with a sentence that says what to set.

Belongs here: what a URL, a place, a schema, a number of an environment variable may be. Does not belong here: which
variables there are (variables.py), and what is made of them (settings.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from totesys_assets.errors import SettingsError

# PostgreSQL's limit on the length of a name.
_NAME_BYTES = 63


def database_url(variable: str, url: str | None) -> str | None:
    """The URL without surrounding blanks, when libpq can read it; no message quotes it, for it may hold a password."""
    url = (url or "").strip()
    if not url:
        return None
    import psycopg.conninfo  # here: embedded databases need no URL

    form = "Set it in the form postgresql://user:password@host:port/database"
    if other := re.match(r"jdbc:|postgres(ql)?\+[a-z0-9_]+(?=:)", url):
        raise SettingsError(f"{variable} begins with {other[0]!r}, which is for another library. {form}.")
    parts, failure = {}, ""
    try:
        parts = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        failure = str(error)
    if unknown := re.search(r'invalid URI query parameter: "(\w+)"', failure):
        raise SettingsError(f"{variable} has a parameter that libpq does not know, {unknown[1]!r}: take it out.")
    if re.match(r"postgres(ql)?://", url) and _has_raw_password(url, parts):
        raise SettingsError(
            f"{variable} seems to have a password with characters that must be percent-encoded in a URL: write @ as "
            "%40, / as %2F, : as %3A, ? as %3F, % as %25."
        )
    if not parts:
        raise SettingsError(f"{variable} is not a PostgreSQL URL. {form}.")
    return url


def source_schema(schema: str | None, url: str | None) -> str:
    """The schema of ToteSys. A URL that says where to look would be surprised to be ignored."""
    if schema is None and re.search(r"options=[^&]*search_path", url or ""):
        raise SettingsError(
            "TOTESYS_URL sets search_path, on which nothing is looked up: name the schema of ToteSys in TOTESYS_SCHEMA."
        )
    return schema_name(schema or "public", "TOTESYS_SCHEMA")


def _has_raw_password(url: str, parts: Mapping[str, object]) -> bool:
    """Whether a URL was split, or could not be split, at a character of its password."""
    login_and_host, _, rest = url.partition("://")[2].partition("?")[0].partition("/")
    if not parts:
        return bool(re.search(r"%(?![0-9a-fA-F]{2})", login_and_host + rest)) or "@" in rest
    ports = str(parts.get("port") or "").split(",")
    return login_and_host.count("@") > 1 or "@" in rest or any(port and not port.isdigit() for port in ports)


def schema_name(name: str, said_by: str) -> str:
    """A name that a schema of either database may have; PostgreSQL would cut a longer one short. Raises SettingsError.

    psycopg takes a percent sign for the place of a parameter, in a quoted name too.
    """
    reserved = name.startswith("pg_") or name == "information_schema"
    if reserved or not name.strip() or len(name.encode()) > _NAME_BYTES or "%" in name:
        raise SettingsError(
            f"{said_by} is {name!r}, which cannot be a schema of the platform: choose a name of at most {_NAME_BYTES} "
            "bytes that is not blank, neither begins with pg_, nor has a percent sign, nor is information_schema."
        )
    return name


def folder(variable: str, value: str) -> Path:
    """The whole path of a folder."""
    try:
        return Path(value).expanduser().resolve()
    except (OSError, RuntimeError) as error:  # a user who has no home, links in a circle, a working folder that is gone
        raise SettingsError(
            f"{variable} is {value!r}, which leads nowhere ({error}): set it to a whole path."
        ) from None


def file(variable: str, value: str | None) -> Path | None:
    """The whole path of a file."""
    return None if value is None else folder(variable, value)


def choice(variable: str, value: str, choices: tuple[str, ...]) -> str:
    """The value, which must be one of the choices."""
    if value not in choices:
        raise SettingsError(f"{variable} is {value!r}: set it to {' or '.join(choices)}.")
    return value


def switch(variable: str, value: str | None) -> bool:
    """Whether the variable is 1. Whoever writes "true" or "no" must not be left to guess what it did."""
    if value not in (None, "", "0", "1"):
        raise SettingsError(f"{variable} is {value!r}: set it to 1, or unset it.")
    return value == "1"


def lake_uri(value: str, said_by: str = "LAKE_URI") -> str:
    """A place for a lake as the lake takes it: the whole path of a folder, or s3://bucket/prefix.

    Raises SettingsError for what is neither, and for names that delta-rs would take for others.
    """
    found = place(value, said_by)
    return _readable(found, said_by, "?#" if found.startswith("s3://") else "")


def place(value: str, said_by: str) -> str:
    """The whole path of a folder, or s3://bucket/prefix. Raises SettingsError for what is neither."""
    scheme, separator, rest = value.partition("://")
    if not separator:
        return str(folder(said_by, value))
    bucket = rest.partition("/")[0]
    if scheme == "file" and bucket in ("", "localhost") and rest.startswith(f"{bucket}/"):
        return str(folder(said_by, unquote(rest.removeprefix(bucket), errors="surrogateescape")))
    if scheme == "s3" and bucket and "@" not in bucket:
        return value.rstrip("/")
    # The rest is not quoted: it may be a database's URL, or hold a key.
    shown = "a URL with a login" if "@" in bucket else repr(f"{scheme}://{bucket}")
    raise SettingsError(f"{said_by} is {shown}: set it to a folder or to s3://bucket/prefix.")


def _readable(uri: str, said_by: str, more: str = "") -> str:
    # delta-rs makes a URL of it, decodes that twice and takes a backslash for a slash: it would write to one folder
    # and read from another, or panic.
    odd = re.search(rf"[\[\]^|\\\x00-\x1f\x7f{more}]|%[0-9A-Fa-f]{{2}}|[\ud800-\udfff]|(?<!:)//", uri)
    if odd is None:
        return uri
    raise SettingsError(
        f"{said_by} leads to {uri!r}, which has {odd[0]!r} in its name, and no Delta table can be read there. Set "
        f"LAKE_URI to a place without \\ [ ] ^ |{''.join(f' {each}' for each in more)}, //, control characters and %xx."
    )


def topic(value: str | None) -> str | None:
    """The ARN of an SNS topic."""
    if value is not None and not re.fullmatch(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[\w-]+", value):
        raise SettingsError(
            f"TOTESYS_ALERT_TOPIC is {value!r}: set it to the ARN of an SNS topic, arn:aws:sns:region:account:name."
        )
    return value


def ui_url(value: str | None) -> str | None:
    """The address of the Dagster UI, without a slash at its end."""
    if value is None:
        return None
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        # Not quoted: it may hold a login.
        raise SettingsError("TOTESYS_UI_URL is not the address of a UI: set it to https://host, without a login.")
    return value.rstrip("/")


def rates_url(value: str | None) -> str | None:
    """The address that rates are fetched from."""
    if value is None or is_fetched_from(value):
        return value
    # Not quoted: it may hold a login.
    raise SettingsError(
        "TOTESYS_RATES_URL is not an address to fetch rates from: set it to https://host/path, without a login."
    )


def is_fetched_from(url: str) -> bool:
    """Whether rates may be fetched from ``url``: by https, or by http from this machine."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError where it is none
    except ValueError:
        return False
    is_safe = parts.scheme == "https" or (
        parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    )
    return is_safe and bool(parts.hostname) and "@" not in parts.netloc


def hashes(value: str) -> tuple[str, ...]:
    """The hashes of keys, of a text with commas between them."""
    found = tuple(each.strip().lower() for each in value.split(",") if each.strip())
    if all(re.fullmatch(r"[0-9a-f]{64}", each) for each in found):
        return found
    # Not quoted: it may be a key itself.
    raise SettingsError(
        "TOTESYS_API_KEYS is not a list of hashes: set it to what totesys api --new-key prints as the hash, with "
        "commas between several."
    )


def number(env: Mapping[str, str], variable: str, unset: int, unit: str, least: int = 1, besides: str = "") -> int:
    """A whole number of at least ``least``, or ``besides``; ``unset`` where there is none."""
    value = env.get(variable)
    if value and value != besides and (not re.fullmatch(r"[1-9]\d{0,11}", value) or int(value) < least):
        rest = f", or to {besides}" if besides else ""
        raise SettingsError(f"{variable} is {value!r}: set it to a number of {unit}, {least} or more{rest}.")
    return int(value or unset)
