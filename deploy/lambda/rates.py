"""Fetches the European Central Bank's archive of rates and drops it for the platform, whose tasks have no way out.

AWS Lambda runs it, outside of the network, with what its runtime brings: the standard library and boto3. What is no
such archive is not dropped; the platform checks it again, rate by rate.
"""

import http.client
import io
import os
import time
import urllib.error
import urllib.request
import zipfile
from datetime import UTC, date, datetime

import boto3

MOST_BYTES, MOST_UNPACKED = 10_000_000, 50_000_000  # as the platform takes them; the archive has 0.6 and 2.5 MB
SECONDS = 30  # without an answer, or between two parts of it; the function ends after 180
PAUSES = (5, 20)  # seconds before a further attempt
FIRST_DAY = "1999-01-04"  # of the euro
MOST_DAYS = 6  # without a rate: in 27 years there were at most five


class _Here(urllib.request.HTTPRedirectHandler):
    """No redirects: they could lead away from https."""

    def redirect_request(self, *_: object) -> None:
        """Leave the answer as it is, an error."""


def handler(event: object, context: object) -> dict[str, object]:  # noqa: ARG001 - as Lambda calls it
    """Put the archive at RATES_URL into RATES_BUCKET as RATES_KEY. Raises an error when it did not or it is too old."""
    content = fetched(os.environ["RATES_URL"])
    newest = newest_day(content)
    where = {"Bucket": os.environ["RATES_BUCKET"], "Key": os.environ["RATES_KEY"]}
    boto3.client("s3").put_object(**where, Body=content, ChecksumAlgorithm="SHA256")  # object lock wants a checksum
    age = (datetime.now(UTC).date() - newest).days
    if age > MOST_DAYS:
        raise ValueError(f"the newest rate is of {newest}, {age} days ago: is it still the right address?")
    return {"newest": str(newest), "bytes": len(content)}


def fetched(url: str) -> bytes:
    """The content at ``url``, at the third attempt at the latest."""
    for pause in (*PAUSES, None):
        try:
            with urllib.request.build_opener(_Here).open(url, timeout=SECONDS) as answer:
                content: bytes = answer.read(MOST_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            if pause is None or (isinstance(error, urllib.error.HTTPError) and error.code < 500):
                raise
            print(f"again in {pause} s: {error}")
            time.sleep(pause)
        else:
            return content
    raise AssertionError  # the last attempt returns or raises


def newest_day(content: bytes) -> date:
    """The newest day of an archive. Raises an error for what is none, or lacks days: it replaces the one before."""
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (entry,) = archive.infolist()
        if entry.file_size > MOST_UNPACKED:
            raise ValueError(f"it has {entry.file_size:,} bytes unpacked")
        head, *lines = archive.read(entry).decode("utf-8-sig").splitlines()
    if not head.startswith("Date,"):
        raise ValueError(f"its first line is {head[:50]!r}")
    days = sorted(line.partition(",")[0] for line in lines if line) or [""]
    newest = date.fromisoformat(days[-1])
    if days[0] > FIRST_DAY or newest > datetime.now(UTC).date():
        raise ValueError(f"it has the days from {days[0]} to {newest}, not all from {FIRST_DAY} to now")
    return newest
