"""Fetching newer euro reference rates: an archive from an address, checked as a whole, put where archives are dropped.

Belongs here: the request, its limits, and what is kept of the archives that were fetched. Does not belong here: what is
in an archive (ecb.py), and when to fetch (automation/schedules.py).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from totesys_assets.errors import ConnectionFailed, PlatformError
from totesys_assets.setting_values import is_fetched_from
from totesys_assets.settings import Settings
from totesys_assets.source.ecb import RATES, last_day, newest_possible, rates
from totesys_assets.source.file_store import MOST_BYTES, FileStore

if TYPE_CHECKING:
    import httpx

_CONNECT_SECONDS, _READ_SECONDS = 10.0, 30.0
# All attempts together, however slowly an answer trickles.
MOST_SECONDS = 120.0
# Seconds before each further attempt.
PAUSES = (1.0, 4.0)
_MOST_REDIRECTS = 3
# In 27 years there were at most five days without a rate: at Easter, and at Christmas.
MOST_DAYS = 6
_JUMP = Decimal("0.1")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_FETCHED = re.compile(r"eurofxref-\d{4}-\d{2}-\d{2}\.zip")
_SERVER_ERROR = 500
_OK = 200


@dataclass(frozen=True)
class Fetched:
    """What was fetched: ``path`` below FILES_URI, its newest day, and whether it was not there before.

    ``jumps``: currencies whose newest rate is far from the one before, with both.
    """

    path: str
    newest: str
    is_new: bool
    jumps: tuple[str, ...]


def fetch_rates(settings: Settings) -> Fetched:
    """Fetch the archive at TOTESYS_RATES_URL and put it where archives are dropped, under its newest day.

    Nothing is written unless it is an archive of rates. Raises a PlatformError where there is none, and what was there
    stays as it is; also where its rates end too long ago.
    """
    if settings.rates_url is None:
        raise PlatformError(
            "TOTESYS_RATES_URL is not set, so there is no address to fetch rates from. Set it, or drop the archive of "
            f"the European Central Bank in {settings.files_uri}/{RATES}."
        )
    content = _download(settings.rates_url)
    found = rates("what TOTESYS_RATES_URL answers", content)
    newest = last_day(found)
    if not _may_be_newest(newest):
        raise PlatformError(
            f'What TOTESYS_RATES_URL answers has rates up to "{newest}", which cannot be. Nothing of it was kept.'
        )
    store = FileStore(settings.files_uri, "FILES_URI")
    path = f"{RATES}/eurofxref-{newest}.zip"
    is_new = store.find(path) != content
    if is_new:
        store.write(path, content)
    _tidy(store)
    age = (datetime.now(UTC).date() - date.fromisoformat(newest)).days
    if age > MOST_DAYS:
        raise PlatformError(
            f"The newest rate at TOTESYS_RATES_URL is {age} days old, of {newest}, and there were never more than "
            f"{MOST_DAYS} days without one. What there is was kept; see whether the address is still the right one."
        )
    return Fetched(path, newest, is_new, tuple(_jumps(found)))


def _jumps(found: pa.Table) -> Iterator[str]:
    """Currencies whose newest rate differs from the one before by more than ``_JUMP``."""
    last_days = sorted(map(str, pc.unique(found["rate_date"]).to_pylist()))[-2:]
    by_currency: dict[str, list[Decimal]] = {}
    for row in found.filter(pc.is_in(found["rate_date"], pa.array(last_days))).sort_by("rate_date").to_pylist():
        with suppress(InvalidOperation):  # the capture tells of it
            if (rate := Decimal(row["units_per_euro"])).is_finite():
                by_currency.setdefault(row["currency_code"], []).append(rate)
    for currency, values in sorted(by_currency.items()):
        before, after = values[0], values[-1]
        if abs(after - before) > _JUMP * before:
            yield f"{currency} {before} to {after}"


def _may_be_newest(day: str) -> bool:
    """Whether ``day`` is a day, and not one to come."""
    with suppress(ValueError):
        return _DAY.fullmatch(day) is not None and date.fromisoformat(day).isoformat() <= newest_possible()
    return False


def _tidy(store: FileStore) -> None:
    """Remove what was fetched earlier and is believed of no day, because newer archives have rates of all its days."""
    files = [each for each in store.files(RATES) if _FETCHED.fullmatch(each.name)]
    newer: list[pa.Array[Any]] = []
    for file in reversed(files):  # their names are their newest days
        with suppress(PlatformError):  # it cannot be read: the capture tells of it
            keys = _keys(rates(file.name, store.read(file)))
            if newer and bool(pc.all(pc.is_in(keys, value_set=pa.concat_arrays(newer))).as_py()):
                store.delete(file.path)
            newer.append(keys)


def _keys(found: pa.Table) -> pa.Array[Any]:
    """Day and currency of each rate."""
    parts = (found[name].combine_chunks() for name in ("rate_date", "currency_code"))
    joined: pa.Array[Any] = pc.binary_join_element_wise(*parts, " ")  # type: ignore[call-overload] # the stubs know no text
    return joined


def _download(url: str) -> bytes:
    import httpx  # here: slow to import, and not needed by a refresh

    until = time.monotonic() + MOST_SECONDS
    limits = httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS)
    with httpx.Client(timeout=limits) as client:
        for pause in (*PAUSES, None):
            try:
                return _answer(client, url, until)
            except (httpx.HTTPError, _ServerError) as error:
                why = str(error) or type(error).__name__
            if pause is None or time.monotonic() + pause > until:
                raise _failed(why)
            time.sleep(pause)
    raise AssertionError  # the loop ends with an answer or an error


class _ServerError(Exception):
    """The server failed, and may not fail again."""


def _answer(client: httpx.Client, url: str, until: float) -> bytes:
    """The content at ``url``, after at most a few redirects to addresses that are as safe."""
    request = client.build_request("GET", url)
    for _ in range(_MOST_REDIRECTS + 1):
        with _sent(client, request) as response:
            if response.next_request is None:
                return _content(response, until)
            request = response.next_request
        if not is_fetched_from(str(request.url)):
            raise _failed(f"it leads to another place, {request.url.scheme}://{request.url.host}, which is not https")
    raise _failed(f"it leads from one place to another more than {_MOST_REDIRECTS} times")


@contextmanager
def _sent(client: httpx.Client, request: httpx.Request) -> Iterator[httpx.Response]:
    response = client.send(request, stream=True)
    try:
        yield response
    finally:
        response.close()


def _content(response: httpx.Response, until: float) -> bytes:
    if response.status_code >= _SERVER_ERROR:
        raise _ServerError(f"it answers {response.status_code}")
    if response.status_code != _OK:
        raise _failed(f"it answers {response.status_code}")
    content = bytearray()
    for part in response.iter_bytes():
        content += part
        if len(content) > MOST_BYTES:
            raise _failed(f"it has more than {MOST_BYTES:,} bytes")
        if time.monotonic() > until:
            raise _failed(f"it took longer than {MOST_SECONDS:.0f} s")
    return bytes(content)


def _failed(why: str) -> ConnectionFailed:
    return ConnectionFailed(f"The rates were not fetched from TOTESYS_RATES_URL: {why}. What was there stays as it is.")
