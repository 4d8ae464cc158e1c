"""The lake in a bucket: the whole platform over a real S3 server."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import botocore.exceptions
import pyarrow as pa
import pytest

import totesys_assets
from totesys_assets import spill
from totesys_assets.audit.audit import audit
from totesys_assets.capture.dead_letters import SCHEMA
from totesys_assets.catalogue.catalogue import catalogue, lake_schema
from totesys_assets.dagster_home import DAGSTER_URL_VARIABLE, instance_config
from totesys_assets.errors import LakeFailed, PlatformError
from totesys_assets.lake import handles, storage
from totesys_assets.lake.commit import LostRace, append, written_beside
from totesys_assets.lake.history import commits
from totesys_assets.lake.storage import storage_of
from totesys_assets.lake.tables import Lake
from totesys_assets.lake.written import batches_of, found, listed_in
from totesys_assets.load import copying
from totesys_assets.load.restore import differing, restore
from totesys_assets.transform.engines.passed import Passed
from totesys_assets.transform.passing import can_pass
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.automation.test_sensor import new_order
from totesys_assets_tests.conftest import Platform, PostgresServer, make_platform
from totesys_assets_tests.deploy.servers import SECRET, Proxy, Request, SeaweedFS, s3_environment
from totesys_assets_tests.rows import version

OnS3 = Callable[..., AbstractContextManager[Platform]]
TOTESYS = str(Path(sys.executable).with_name("totesys"))
LETTER: dict[str, Any] = dict.fromkeys(SCHEMA.names, None)


@pytest.fixture(scope="module")
def bucket(seaweed: SeaweedFS) -> str:
    """A bucket for all; each test has a prefix of its own."""
    seaweed.client.create_bucket(Bucket="lake")
    return "lake"


@pytest.fixture
def on_s3(postgres_server: PostgresServer, trade_template: str, tmp_path: Path, bucket: str) -> OnS3:
    """Makes a platform whose lake is in the bucket, with the S3 server at a URL."""

    @contextmanager
    def make(url: str, lake: str | None = None) -> Iterator[Platform]:
        source = postgres_server.template(f"totesys_{os.urandom(4).hex()}", trade_template)
        uri = lake or f"s3://{bucket}/{os.urandom(4).hex()}/lake"
        with pytest.MonkeyPatch.context() as patch:
            for name, value in s3_environment(url).items():
                patch.setenv(name, value)
            with make_platform(source, postgres_server.database(), tmp_path, LAKE_URI=uri) as platform:
                yield platform

    return make


def differences(platform: Platform) -> list[str]:
    """What an audit finds to be wrong."""
    found = audit(platform.core)
    assert found
    return [f"{finding.asset} {finding.check}: {finding.detail}" for finding in found if not finding.passed]


def rows(lake: Lake) -> int:
    held = lake.find("dead_letter")
    assert held is not None
    return int(held.to_pyarrow_dataset().count_rows())


REFUSAL = (
    b"<Error><Code>InvalidRequest</Code><Message>Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object "
    b"requests with Object Lock parameters</Message></Error>"
)


def without_checksum(each: Request) -> tuple[int, bytes] | None:
    """As S3 answers in a bucket that locks new objects for a time; SeaweedFS does not ask for checksums."""
    return (400, REFUSAL) if each.method == "PUT" and not each.has_checksum else None


def test_all_of_it_works_in_a_bucket_that_locks_its_objects(on_s3: OnS3, seaweed: SeaweedFS, proxy: Proxy) -> None:
    seaweed.client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    retention = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    seaweed.client.put_object_lock_configuration(
        Bucket="locked", ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": retention}
    )
    proxy.before = without_checksum
    with on_s3(proxy.url, "s3://locked/some/prefix") as platform:
        (first,) = platform.refresh()
        assert len(first.request.assets) == 52
        proxy.count()
        assert platform.look().requests == []
        requests = proxy.count()
        assert 100 < requests.total() < 400  # docs/scaling.md
        assert requests["HEAD"] < 50  # not two for each table
        new_order(platform)
        (second,) = platform.refresh()
        assert len(second.request.assets) == 15
        requests = proxy.count()
        assert 500 < requests.total() < 1200  # docs/scaling.md
        assert requests["GET"] <= 250
        assert requests["PUT"] < 45
        assert platform.query("SELECT count(*) FROM current_sales_order") == [(2,)]

        assert len(totesys_assets.read("fact_sales_order")) == 2
        assert totesys_assets.read_arrow("sales_order", history=True).num_rows == 2
        again = Warehouse(platform.warehouse_url, "again")
        restore(again, platform.lake)
        assert differing(again, platform.warehouse) == []
        platform.lake.compact()  # which removes files: in a bucket with versions, it marks them as removed
        # In a process of its own: delta-rs keeps the interpreter to itself while it reads a table's history, and the
        # proxy, which is to answer it, runs in this one.
        audited = subprocess.run([TOTESYS, "audit"], capture_output=True, text=True, timeout=120, check=False)
        assert audited.returncode == 0, audited.stdout + audited.stderr
        assert platform.look().requests == []
    assert {each.path.startswith("/locked/some/prefix/") for each in proxy.requests if each.kind != "LIST"} == {True}


def test_the_server_lets_one_of_two_conditional_writes_win(seaweed: SeaweedFS, bucket: str) -> None:
    seaweed.client.put_object(Bucket=bucket, Key="commit", Body=b"1", IfNoneMatch="*")
    with pytest.raises(botocore.exceptions.ClientError, match="PreconditionFailed"):
        seaweed.client.put_object(Bucket=bucket, Key="commit", Body=b"2", IfNoneMatch="*")


def test_of_many_writers_at_once_one_commits_and_the_others_lose_the_race(on_s3: OnS3, seaweed: SeaweedFS) -> None:
    with on_s3(seaweed.url) as platform:
        platform.lake.open_plain("dead_letter", SCHEMA, "")
        ready, won, lost = threading.Barrier(6), [], []

        def write(number: int) -> None:
            held = platform.lake.find("dead_letter")
            assert held is not None
            batch = pa.RecordBatch.from_pylist([{**LETTER, "row_key": str(number)}], schema=SCHEMA)
            ready.wait()
            try:
                append(held, [batch], SCHEMA, "capture:sales_order")
                won.append(number)
            except LostRace:
                lost.append(number)

        threads = [threading.Thread(target=write, args=[number]) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), len(lost)) == (1, 5)
        assert rows(platform.lake) == 1


def test_two_refreshes_at_once_double_nothing(
    on_s3: OnS3, seaweed: SeaweedFS, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    command = [TOTESYS, "refresh"]
    with on_s3(seaweed.url) as platform:
        started = []
        for number in range(2):
            home = tmp_path / f"dagster-{number}"
            home.mkdir()
            (home / "dagster.yaml").write_text(instance_config(), encoding="utf-8")
            records = {"DAGSTER_HOME": str(home), DAGSTER_URL_VARIABLE: postgres_server.database()}
            env = {**os.environ, **records, "TOTESYS_HOME": str(home)}
            started.append(
                subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            )
        for process in started:
            output, _ = process.communicate(timeout=120)
            assert SECRET not in output
        platform.refresh()  # what one of them left to the next
        assert platform.look().requests == []
        assert differences(platform) == []
        for table in ("sales_order", "payment", "address"):
            versions = totesys_assets.read_arrow(table, history=True)
            assert versions.num_rows == len(set(versions.column(f"{table}_id").to_pylist()))


@pytest.mark.parametrize(
    ("wrong", "code"),
    [({"key": "AKIANOBODY"}, "InvalidAccessKeyId"), ({"secret": "wr0ng-" + SECRET}, "SignatureDoesNotMatch")],
)
def test_wrong_credentials_are_refused_in_a_sentence_without_the_secret(
    seaweed: SeaweedFS, bucket: str, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], code: str
) -> None:
    for name, value in s3_environment(seaweed.url, **wrong).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PlatformError) as caught:
        Lake(f"s3://{bucket}/prefix").find("ledger")
    message = str(caught.value)
    assert message.startswith(f"The lake at s3://{bucket}/prefix cannot be read: S3 answers {code}: ")
    assert SECRET not in message
    assert "\n" not in message


def test_a_bucket_that_is_not_there_is_said_to_be_missing(seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_environment(seaweed.url).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PlatformError, match=r"cannot be read: S3 answers NoSuchBucket: .* does not exist\.$"):
        Lake("s3://no-such-bucket/prefix").find("ledger")


def test_a_refresh_whose_server_dies_fails_and_the_next_one_completes_it(
    on_s3: OnS3, seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(handles._S3, "max_retries", "1")  # a server that is gone is given up in seconds, not in minutes
    with on_s3(seaweed.url) as platform:
        (request,) = platform.look().requests
        bucket, _, prefix = platform.settings.lake_uri.removeprefix("s3://").partition("/")

        def die_in_the_middle() -> None:
            while seaweed.client.list_objects_v2(Bucket=bucket, Prefix=prefix)["KeyCount"] < 20:
                time.sleep(0.01)
            seaweed.kill()

        killer = threading.Thread(target=die_in_the_middle)
        killer.start()
        outcome = platform.run(request)
        killer.join()
        seaweed.start()
        assert not outcome.success
        assert any("The lake" in failure for failure in outcome.failures)
        platform.refresh()
        assert platform.look().requests == []
        assert differences(platform) == []
        assert platform.query("SELECT count(*) FROM current_sales_order") == [(1,)]


def objects(seaweed: SeaweedFS, uri: str) -> set[str]:
    """The Parquet files below ``uri``, by their whole keys."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    pages = seaweed.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
    keys = {str(each["Key"]) for page in pages for each in page.get("Contents", ())}
    return {key for key in keys if key.endswith(".parquet") and "/_delta_log/" not in key}


def test_a_first_load_passes_its_rows_on_in_a_bucket_too(
    on_s3: OnS3, seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "LARGE", 1)
    passed = set[str]()
    replace = Passed.replace

    def noted(self: Passed, *arguments: Any, **named: Any) -> None:
        replace(self, *arguments, **named)
        passed.update({self.made.table.name} if self.made.is_committed else ())

    monkeypatch.setattr(Passed, "replace", noted)
    with on_s3(seaweed.url) as platform:
        platform.refresh()
        tables = catalogue()
        assert passed == {name for name, table in tables.star.items() if can_pass(tables, table)} != set()
        assert differences(platform) == []
        named = {uri.removeprefix("s3://lake/") for table in platform.lake.tables() for uri in table.file_uris()}
        there = objects(seaweed, platform.settings.lake_uri)
        assert {each for each in there if "/ledger/" not in each} <= named <= there  # the ledger's are merged


def test_files_beside_a_table_in_a_bucket_are_read_back_and_removed(on_s3: OnS3, seaweed: SeaweedFS) -> None:
    letters = [{**LETTER, "row_key": str(number)} for number in range(3)]
    with on_s3(seaweed.url) as platform:
        held = platform.lake.open_plain("dead_letter", SCHEMA, "")
        done = written_beside(held, pa.Table.from_pylist(letters, schema=SCHEMA).to_batches(), SCHEMA)
        assert len(objects(seaweed, held.table_uri)) == len(done.actions) == 1
        assert pa.Table.from_batches(batches_of(done, SCHEMA)).to_pylist() == letters
        done.discard()
        assert objects(seaweed, held.table_uri) == set()


def test_python_goes_on_while_commits_and_files_are_read(on_s3: OnS3, seaweed: SeaweedFS, proxy: Proxy) -> None:
    """The proxy runs in this process: what delta-rs does with Python's lock would wait for it in vain."""
    with on_s3(proxy.url) as platform:
        held = platform.lake.open_plain("dead_letter", SCHEMA, "")
        append(held, pa.Table.from_pylist([LETTER], schema=SCHEMA).to_batches(), SCHEMA, "test", is_large=True)
        assert [each["operation"] for each in commits(held)] == ["WRITE", "CREATE TABLE"]
        sizes = listed_in(held, "")
        assert found(held, sizes, [{}]).rows == 1
        storage_of(held).remove_folder("elsewhere")
        key = f"{held.table_uri.removeprefix('s3://lake/').rstrip('/')}/_delta_log/{0:020}.json"
        seaweed.client.delete_object(Bucket="lake", Key=key)
        assert [each["operation"] for each in commits(held)] == ["WRITE"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a bucket refuses is not tried again."""
    monkeypatch.setattr(storage, "_ATTEMPTS", 1)
    storage._client.cache_clear()
    yield
    storage._client.cache_clear()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("is_written", [False, True])
def test_a_file_that_cannot_be_sent_is_an_error_and_leaves_nothing(
    on_s3: OnS3, seaweed: SeaweedFS, proxy: Proxy, is_written: bool
) -> None:
    place = Path(spill.folder()).parent  # what a killed process left there, the next one removes
    here = list[Path]()

    def failing(each: Request) -> tuple[int, bytes] | None:
        if each.method != "PUT" or not each.path.endswith(".parquet"):
            return None
        here.extend(place.rglob("*.parquet"))
        if is_written:  # and only the answer is lost
            seaweed.client.put_object(Bucket="lake", Key=each.path.removeprefix("/lake/"), Body=b"some")
        return 500, b"<Error><Code>InternalError</Code><Message>We failed.</Message></Error>"

    with on_s3(proxy.url) as platform:
        held = platform.lake.open_plain("dead_letter", SCHEMA, "")
        proxy.before = failing
        with pytest.raises(LakeFailed, match=r"cannot be written: the bucket of s3://.* We failed"):
            written_beside(held, pa.Table.from_pylist([LETTER], schema=SCHEMA).to_batches(), SCHEMA)
        proxy.before = lambda _: None
        assert objects(seaweed, held.table_uri) == set()
    assert len(here) == 1
    assert not any(each.parent.exists() for each in here)


@pytest.mark.usefixtures("impatient")
def test_a_bucket_that_takes_no_files_is_asked_once_to_remove_them(on_s3: OnS3, proxy: Proxy) -> None:
    def failing(each: Request) -> tuple[int, bytes] | None:
        return (500, b"<Error><Code>InternalError</Code></Error>") if each.method in {"PUT", "DELETE"} else None

    days = [version("sales_order", created_at=datetime(2024, month, 1)) for month in range(1, 13)]
    with on_s3(proxy.url) as platform:
        table = catalogue().source["sales_order"]
        held, schema = platform.lake.open_versions(table), lake_schema(table, versioned=True)
        rows = [{**day, "_month": f"{day['created_at']:%Y-%m}"} for day in days]
        proxy.before = failing
        proxy.count()
        with pytest.raises(LakeFailed):
            written_beside(held, pa.Table.from_pylist(rows, schema=schema).to_batches(), schema)
        assert proxy.count()["DELETE"] == 1


@pytest.fixture
def anew() -> Iterator[None]:
    """A client of boto3 that reads the environment again, and nothing that is known of a bucket."""
    storage._client.cache_clear()
    storage._seen.clear()
    yield
    storage._client.cache_clear()


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("others", [["AWS_ENDPOINT", "AWS_ENDPOINT_URL"], ["AWS_PROFILE"]])
def test_files_and_commits_go_to_one_server_whatever_names_others(
    on_s3: OnS3, seaweed: SeaweedFS, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: list[str]
) -> None:
    profile = f"[profile mine]\nservices = x\n[services x]\ns3 =\n  endpoint_url = {proxy.url}\n"
    (tmp_path / "config").write_text(profile, encoding="utf-8")
    with on_s3(seaweed.url) as platform:
        for name in others:
            monkeypatch.setenv(name, "mine" if name == "AWS_PROFILE" else proxy.url)
        if "AWS_PROFILE" in others:  # which boto3 would prefer to this
            monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
            monkeypatch.setenv("AWS_ENDPOINT", seaweed.url)
            monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
        lake = Lake(platform.settings.lake_uri)
        held = lake.open_plain("dead_letter", SCHEMA, "")
        append(held, pa.Table.from_pylist([LETTER], schema=SCHEMA).to_batches(), SCHEMA, "one", is_large=True)
        assert rows(lake) == 1
    assert proxy.requests == []


@pytest.mark.usefixtures("anew")
def test_a_file_that_was_sent_elsewhere_is_not_committed(on_s3: OnS3, proxy: Proxy) -> None:
    with on_s3(proxy.url) as platform:
        held = platform.lake.open_plain("dead_letter", SCHEMA, "")
        proxy.before = lambda each: (200, b"") if each.method == "PUT" and each.path.endswith(".parquet") else None
        with pytest.raises(LakeFailed, match=r"is not to be found in s3://.* afterwards. Let AWS_ENDPOINT_URL_S3 be"):
            written_beside(held, pa.Table.from_pylist([LETTER], schema=SCHEMA).to_batches(), SCHEMA)


@pytest.mark.usefixtures("anew")
def test_files_are_encrypted_as_the_environment_says(
    on_s3: OnS3, seaweed: SeaweedFS, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[dict[str, str]]()

    def storing(each: Request) -> tuple[int, bytes] | None:  # SeaweedFS has no such keys
        if each.method != "PUT" or not each.path.endswith(".parquet"):
            return None
        asked.append({name: value for name, value in each.headers.items() if "server-side-encryption" in name})
        seaweed.client.put_object(Bucket="lake", Key=each.path.removeprefix("/lake/"), Body=b"some")
        return 200, b""

    with on_s3(proxy.url) as platform:
        held = platform.lake.open_plain("dead_letter", SCHEMA, "")
        monkeypatch.setenv("AWS_SERVER_SIDE_ENCRYPTION", "aws:kms")
        monkeypatch.setenv("AWS_SSE_KMS_KEY_ID", "some-key")
        proxy.before = storing
        written_beside(held, pa.Table.from_pylist([LETTER], schema=SCHEMA).to_batches(), SCHEMA)
    names = ("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id")
    assert asked == [dict(zip(names, ("aws:kms", "some-key"), strict=True))]


def test_large_files_come_with_checksums_in_all_their_parts(on_s3: OnS3, proxy: Proxy) -> None:
    proxy.before = without_checksum
    with on_s3(proxy.url) as platform:
        held = platform.lake.open_plain("dead_letter", SCHEMA, "")
        letters = [{**LETTER, "raw": os.urandom(8000).hex()} for _ in range(1500)]
        batches = pa.Table.from_pylist(letters, schema=SCHEMA).to_batches(max_chunksize=100)
        append(held, batches, SCHEMA, "capture:sales_order")
        assert rows(platform.lake) == 1500
    assert len([each for each in proxy.requests if "partNumber" in each.query]) > 1
