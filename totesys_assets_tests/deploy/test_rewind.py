"""The lake in a bucket becomes what it was at a moment, whatever happened to its objects since."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from totesys_assets.errors import LakeFailed, PlatformError
from totesys_assets.lake.rewind import Bucket
from totesys_assets_tests.automation.test_sensor import new_order
from totesys_assets_tests.conftest import PostgresServer, make_platform
from totesys_assets_tests.deploy.servers import Proxy, Request, SeaweedFS, s3_environment

TOTESYS = str(Path(sys.executable).with_name("totesys"))


@pytest.fixture
def objects(seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client for a new bucket with versions, named ``objects.bucket``."""
    for name, value in s3_environment(seaweed.url).items():
        monkeypatch.setenv(name, value)
    client = seaweed.client
    client.bucket = f"versions-{os.urandom(4).hex()}"
    client.create_bucket(Bucket=client.bucket, ObjectLockEnabledForBucket=True)
    return client


def now() -> datetime:
    """This moment, with nothing written in the seconds around it."""
    time.sleep(3)
    moment = datetime.now(UTC).replace(microsecond=0)
    time.sleep(3)
    return moment


def put(client: Any, **objects: bytes) -> None:
    for key, body in objects.items():
        client.put_object(Bucket=client.bucket, Key=f"lake/{key}", Body=body)


def remove(client: Any, *keys: str) -> None:
    for key in keys:
        client.delete_object(Bucket=client.bucket, Key=f"lake/{key}")


def content(client: Any, prefix: str = "lake/") -> dict[str, bytes]:
    """Every object under a prefix."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=client.bucket, Prefix=prefix)
    keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
    return {key: client.get_object(Bucket=client.bucket, Key=key)["Body"].read() for key in keys}


def versions(client: Any) -> int:
    found = client.list_object_versions(Bucket=client.bucket)
    return len(found.get("Versions", ())) + len(found.get("DeleteMarkers", ()))


def test_what_was_lost_overwritten_added_or_removed_before_becomes_what_it_was(objects: Any) -> None:
    put(objects, kept=b"1", lost=b"2", overwritten=b"3", emptied=b"4", removed_before=b"5", back_again=b"6")
    remove(objects, "removed_before")
    objects.put_object(Bucket=objects.bucket, Key="files/beside", Body=b"")
    before, moment = content(objects), now()
    put(objects, overwritten=b"other", emptied=b"", added=b"new", removed_before=b"anew")
    remove(objects, "lost", "back_again")
    put(objects, back_again=b"other")
    objects.put_object(Bucket=objects.bucket, Key="files/beside", Body=b"newer")
    held, bucket = versions(objects), Bucket(f"s3://{objects.bucket}/lake")

    plan = bucket.plan(moment)
    assert {each.key for each in plan.put_back} == {
        f"lake/{key}" for key in ("lost", "overwritten", "emptied", "back_again")
    }
    assert plan.remove == ["lake/added", "lake/removed_before"]
    assert (plan.unchanged, plan.is_quiet, versions(objects)) == (1, True, held)
    bucket.carry_out(plan)
    assert content(objects) == before
    assert versions(objects) == held + plan.steps  # nothing was destroyed
    assert content(objects, "files/") == {"files/beside": b"newer"}
    assert bucket.plan(moment).steps == 0
    # And the other way round: to what it was before it was restored.
    later = now()
    put(objects, kept=b"broken")
    bucket.carry_out(bucket.plan(later))
    assert content(objects) == before


def test_an_object_that_was_written_and_removed_within_a_second_is_as_it_was_left(objects: Any) -> None:
    put(objects, other=b"")
    for number in range(4):
        put(objects, **{f"left{number}": b"", f"gone{number}": b""})
        remove(objects, f"gone{number}", f"left{number}")
        put(objects, **{f"left{number}": b"again"})
    before, moment = content(objects), now()
    put(objects, **{key.removeprefix("lake/"): b"later" for key in before} | {"gone0": b"later", "gone1": b"later"})
    bucket = Bucket(f"s3://{objects.bucket}/lake")
    bucket.carry_out(bucket.plan(moment))
    assert content(objects) == before


def test_a_restore_that_was_interrupted_goes_on_where_it_stopped(
    objects: Any, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(objects, **{f"object{number:03}": b"as it was" for number in range(200)})
    before, moment = content(objects), now()
    remove(objects, *(f"object{number:03}" for number in range(200)))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    done = 0

    def dies(request: Request) -> tuple[int, bytes] | None:
        nonlocal done
        if request.method != "PUT":
            return None
        done += 1
        return (403, b"<Error><Code>AccessDenied</Code></Error>") if done > 90 else None

    proxy.before = dies
    bucket = Bucket(f"s3://{objects.bucket}/lake")
    with pytest.raises(LakeFailed, match="refused or did not answer"):
        bucket.carry_out(bucket.plan(moment))
    proxy.before = lambda _: None
    rest = bucket.plan(moment)
    assert 100 <= rest.steps <= 110
    bucket.carry_out(rest)
    assert content(objects) == before


def test_a_moment_at_which_something_was_written_is_told_with_a_quiet_one_before(objects: Any) -> None:
    put(objects, first=b"")
    quiet = now()
    put(objects, second=b"")
    busy = datetime.now(UTC)
    plan = Bucket(f"s3://{objects.bucket}/lake").plan(busy)
    assert not plan.is_quiet
    assert plan.quiet is not None
    assert abs(plan.quiet - quiet) <= timedelta(seconds=2)
    assert Bucket(f"s3://{objects.bucket}/lake").plan(plan.quiet).remove == ["lake/second"]


@pytest.mark.parametrize(
    ("prepare", "ago", "complaint"),
    [
        (lambda client: put(client, first=b""), timedelta(days=1), "There was no lake at"),
        (
            lambda client: client.put_bucket_lifecycle_configuration(
                Bucket=client.bucket,
                LifecycleConfiguration={
                    "Rules": [
                        {
                            "ID": "old",
                            "Status": "Enabled",
                            "Filter": {"Prefix": ""},
                            "NoncurrentVersionExpiration": {"NoncurrentDays": 90},
                        }
                    ]
                },
            ),
            timedelta(days=91),
            "keeps replaced objects for 90 days",
        ),
    ],
    ids=["no lake then", "too long ago"],
)
def test_a_moment_that_is_gone_is_refused(
    prepare: Callable[[Any], None], ago: timedelta, complaint: str, objects: Any
) -> None:
    prepare(objects)
    with pytest.raises(PlatformError, match=complaint):
        Bucket(f"s3://{objects.bucket}/lake").plan(datetime.now(UTC) - ago)


def test_a_folder_and_a_bucket_without_versions_are_refused(seaweed: SeaweedFS, objects: Any) -> None:
    with pytest.raises(PlatformError, match="which keeps no versions"):
        Bucket("/srv/lake")
    seaweed.client.create_bucket(Bucket="plain")
    with pytest.raises(PlatformError, match="keeps no versions"):
        Bucket("s3://plain/lake").plan(datetime.now(UTC))


def test_a_destroyed_lake_and_its_warehouse_are_what_they_were_and_go_on(
    objects: Any, postgres_server: PostgresServer, trade_template: str, tmp_path: Path
) -> None:
    source = postgres_server.template(f"totesys_{os.urandom(4).hex()}", trade_template)
    warehouse, uri = postgres_server.database(), f"s3://{objects.bucket}/lake"

    def totesys(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([TOTESYS, *words], capture_output=True, text=True, timeout=180, check=False)

    with make_platform(source, warehouse, tmp_path, LAKE_URI=uri) as platform:
        platform.refresh()
        new_order(platform)
        platform.refresh()
    before, moment = content(objects), now()
    # As RDS restores it, to the same moment.
    kept = postgres_server.template(f"kept_{os.urandom(4).hex()}", urlsplit(warehouse).path.removeprefix("/"))
    with make_platform(source, warehouse, tmp_path, LAKE_URI=uri) as platform:
        platform.sql("UPDATE sales_order SET units_sold = 77 WHERE sales_order_id = 2")
        platform.refresh()
        platform.lake.compact()
        for number, key in enumerate(sorted(before)):
            if number % 3 == 0:
                objects.delete_object(Bucket=objects.bucket, Key=key)
            elif number % 3 == 1:
                objects.put_object(Bucket=objects.bucket, Key=key, Body=b"encrypted by somebody")
        assert totesys("audit").returncode == 1

    with make_platform(source, kept, tmp_path, LAKE_URI=uri) as platform:
        said = totesys("restore-lake", moment.isoformat())
        assert said.returncode == 0
        assert "Nothing was changed. To do it, stop what writes to the lake, and add --apply." in said.stdout
        done = totesys("restore-lake", moment.isoformat(), "--apply")
        assert done.returncode == 0, done.stderr
        assert content(objects) == before
        again = totesys("restore-lake", moment.isoformat())
        assert "Nothing was changed. There is nothing to do." in again.stdout
        platform.refresh()  # what was captured since is captured again
        audited = totesys("audit")
        assert audited.returncode == 0, audited.stdout + audited.stderr
        sold = platform.query("SELECT sales_order_id, units_sold FROM history_sales_order WHERE sales_order_id = 2")
        assert [each[1] == 77 for each in sold].count(True) == 1
        assert len(sold) == 2
        assert platform.look().requests == []


def test_a_moment_between_a_file_and_its_commit_is_refused_once_it_is_seen(
    objects: Any, postgres_server: PostgresServer, trade_template: str, tmp_path: Path
) -> None:
    source = postgres_server.template(f"totesys_{os.urandom(4).hex()}", trade_template)
    uri = f"s3://{objects.bucket}/lake"
    with make_platform(source, postgres_server.database(), tmp_path, LAKE_URI=uri) as platform:
        platform.refresh()
        bucket = Bucket(uri)
        assert bucket.lacking(platform.lake) == []
        data = next(key for key in content(objects) if key.endswith(".parquet"))
        objects.delete_object(Bucket=objects.bucket, Key=data)
        assert bucket.lacking(platform.lake) == [data]
