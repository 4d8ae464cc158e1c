"""The function that fetches rates on AWS: what it drops the platform reads, and what is no archive it does not drop."""

from __future__ import annotations

import importlib.util
import io
import os
import zipfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from types import ModuleType

import boto3
import pytest

from totesys_assets.source import ecb
from totesys_assets.source.dropped import copies_of
from totesys_assets.source.file_store import MOST_BYTES, FileStore
from totesys_assets_tests.deploy.conftest import PROJECT
from totesys_assets_tests.deploy.servers import SeaweedFS, s3_environment
from totesys_assets_tests.source.test_fetched_rates import (
    Server,
    archive,
    content,
    cut,
    endless,
    redirect,
    silent,
)

FOLDER = PROJECT / "deploy" / "lambda"
NAME = "rates/eurofxref-hist.zip"
TODAY = datetime.now(UTC).date()
FIRST = "1999-01-04,1.1789,0.7111"


def opened(name: str) -> ModuleType:
    """A module of the function's folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"function_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def up_to(day: date, usd: str = "1.1571") -> bytes:
    """An archive from the first day to ``day``, newest first as the bank has it."""
    return archive(f"{day},{usd},0.8712", FIRST)


class Function:
    """The function, as AWS calls it, and where it drops: a place of its own."""

    def __init__(self, seaweed: SeaweedFS, bucket: str) -> None:
        self.module, self._client, self._bucket = opened("rates"), seaweed.client, bucket
        self.place = f"{os.urandom(4).hex()}/files"
        self.uri = f"s3://{bucket}/{self.place}"

    def call(self) -> dict[str, object]:
        done: dict[str, object] = self.module.handler({}, None)
        return done

    def dropped(self) -> dict[str, bytes]:
        """Everything that is there."""
        listed = self._client.list_objects_v2(Bucket=self._bucket, Prefix=f"{self.place}/").get("Contents", [])
        return {
            each["Key"].removeprefix(f"{self.place}/"): self._client.get_object(Bucket=self._bucket, Key=each["Key"])[
                "Body"
            ].read()
            for each in listed
        }


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(scope="module")
def bucket(seaweed: SeaweedFS) -> str:
    name = f"rates-{os.urandom(4).hex()}"
    seaweed.client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def function(seaweed: SeaweedFS, bucket: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> Function:
    made = Function(seaweed, bucket)
    settings = {
        "RATES_URL": f"{server.url}/eurofxref-hist.zip",
        "RATES_BUCKET": bucket,
        "RATES_KEY": f"{made.place}/{NAME}",
        "NO_PROXY": "127.0.0.1",
    }
    for name, value in {**s3_environment(seaweed.url), **settings}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(made.module, "PAUSES", (0.01, 0.01))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers the credentials that it was made with
    return made


def test_what_it_drops_the_platform_reads_and_the_newest_archive_takes_the_place_of_the_one_before(
    function: Function, server: Server
) -> None:
    yesterday, newest = up_to(TODAY - timedelta(days=1), "1.1500"), up_to(TODAY)
    server.answers = [content(yesterday), content(newest)]
    assert function.call() == {"newest": str(TODAY - timedelta(days=1)), "bytes": len(yesterday)}
    assert function.call() == {"newest": str(TODAY), "bytes": len(newest)}
    assert function.dropped() == {NAME: newest}

    store = FileStore(function.uri, "FILES_URI")
    source = ecb.Ecb({}, date(2024, 8, 19), store, copies_of(f"{function.uri}/lake"))
    found = source.dropped(store.files(ecb.RATES))
    assert found.unreadable == {}
    rates = found.read["eurofxref-hist.zip"].to_pylist()
    assert {(row["rate_date"], row["currency_code"]): row["units_per_euro"] for row in rates} == {
        (str(TODAY), "USD"): "1.1571",
        (str(TODAY), "GBP"): "0.8712",
    }


def zipped(**files: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in files.items():
            file.writestr(name, text)
    return made.getvalue()


LINES = f"{TODAY},1.1571,0.8712,\n{FIRST},\n"
NO_ARCHIVES = {
    "a page": b"<html>Moved</html>",
    "nothing": b"",
    "a part of one": up_to(TODAY)[:-30],
    "two files": zipped(a="Date,USD,GBP,\n" + LINES, b="Date,USD,GBP,\n" + LINES),
    "an empty one": zipped(),
    "another table": zipped(a="Day,USD,GBP,\n" + LINES),
    "no days": zipped(a="Date,USD,GBP,\n"),
    "words for days": zipped(a=f"Date,USD,GBP,\nnever,1,1,\n{FIRST},\n"),
    "ninety days": archive(f"{TODAY},1.1571,0.8712", f"{TODAY - timedelta(days=90)},1.2,0.8"),
    "days to come": up_to(TODAY + timedelta(days=2)),
    "too much, unpacked": zipped(a="Date,USD,GBP,\n" + LINES + "\n" * 50_000_000),
}


@pytest.mark.parametrize("what", NO_ARCHIVES)
def test_what_is_no_whole_archive_leaves_the_one_that_is_there(function: Function, server: Server, what: str) -> None:
    server.answers = [content(up_to(TODAY)), content(NO_ARCHIVES[what])]
    function.call()
    before = function.dropped()
    with pytest.raises((ValueError, zipfile.BadZipFile)):
        function.call()
    assert function.dropped() == before


def test_an_answer_without_an_end_is_read_no_further_than_the_platform_would(
    function: Function, server: Server
) -> None:
    server.answers = [endless]
    with pytest.raises(ValueError, match=f"more than {MOST_BYTES:,} bytes"):
        function.call()
    assert function.dropped() == {}


def test_rates_that_are_old_are_dropped_and_reported(function: Function, server: Server) -> None:
    old = up_to(TODAY - timedelta(days=7))
    server.answers = [content(old), content(up_to(TODAY - timedelta(days=6)))]
    with pytest.raises(ValueError, match="7 days ago: is it still the right address"):
        function.call()
    assert function.dropped() == {NAME: old}
    function.call()


def test_a_server_that_fails_is_asked_three_times(function: Function, server: Server) -> None:
    server.answers = [content(b"", 503), content(b"", 500), content(up_to(TODAY))]
    assert function.call()["newest"] == str(TODAY)
    assert len(server.asked) == 3
    server.answers = [content(b"", 503)]
    with pytest.raises(OSError, match="503"):
        function.call()
    assert len(server.asked) == 6


def test_a_server_that_says_nothing_is_not_waited_for(
    function: Function, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(function.module, "SECONDS", 0.2)
    server.answers = [silent, content(up_to(TODAY))]
    assert function.call()["newest"] == str(TODAY)


def test_an_answer_that_is_cut_off_is_not_dropped(function: Function, server: Server) -> None:
    server.answers = [cut]
    with pytest.raises(zipfile.BadZipFile):
        function.call()
    assert function.dropped() == {}


def test_a_refusal_is_not_asked_again_and_another_place_is_not_gone_to(function: Function, server: Server) -> None:
    server.answers = [content(b"", 404), redirect("/other"), content(up_to(TODAY))]
    for code in (404, 302):
        with pytest.raises(OSError, match=str(code)):
            function.call()
    assert server.asked == ["/eurofxref-hist.zip", "/eurofxref-hist.zip"]
    assert function.dropped() == {}


def test_the_package_is_that_of_the_source_and_can_be_read_by_aws() -> None:
    kept = PROJECT / "deploy" / "terraform" / "rates.zip"
    assert kept.read_bytes() == opened("package").packed(), "run: python deploy/lambda/package.py"
    with zipfile.ZipFile(kept) as package:
        (entry,) = package.infolist()
        assert package.read(entry) == (FOLDER / "rates.py").read_bytes()
        assert (entry.filename, oct(entry.external_attr >> 16)) == ("rates.py", "0o100644")


def test_the_platform_takes_as_much_as_the_function() -> None:
    function = opened("rates")
    assert (function.MOST_BYTES, function.MOST_UNPACKED) == (MOST_BYTES, ecb._MOST_BYTES)
