"""Spark over a lake in a bucket: the server writes there with credentials of its own, and the platform commits."""

from __future__ import annotations

import os

import pytest

from totesys_assets.errors import PlatformError
from totesys_assets.lake.tables import Lake
from totesys_assets.transform.engines.in_spark import InSpark
from totesys_assets_tests.deploy.servers import SeaweedFS, s3_environment
from totesys_assets_tests.harness.sail import Sail, needs_sail
from totesys_assets_tests.transform.engines.conftest import fill
from totesys_assets_tests.transform.engines.test_in_spark import ALL, LEAP_DAY, SALES, held, made

pytestmark = needs_sail


@pytest.fixture
def lake(seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A lake in a bucket of its own."""
    for name, value in s3_environment(seaweed.url).items():
        monkeypatch.setenv(name, value)
    bucket = f"spark-{os.urandom(4).hex()}"
    seaweed.client.create_bucket(Bucket=bucket)
    return Lake(f"s3://{bucket}/the lake")


def test_a_table_in_a_bucket_is_built_and_its_days_are_replaced(lake: Lake, seaweed: SeaweedFS) -> None:
    fill(lake, 0)
    server = Sail(AWS_ENDPOINT=seaweed.url)
    try:
        made(lake, SALES, InSpark(server.remote))
        by_spark = held(lake, SALES)
        made(lake, SALES, InSpark(server.remote), LEAP_DAY)
        assert held(lake, SALES) == by_spark
        made(lake, SALES, None, ALL)
        assert held(lake, SALES) == by_spark
    finally:
        server.kill()


def test_a_server_without_rights_on_the_bucket_is_told_in_a_sentence(lake: Lake, seaweed: SeaweedFS) -> None:
    fill(lake, 0, rows=2)
    server = Sail(AWS_ENDPOINT=seaweed.url, AWS_SECRET_ACCESS_KEY="wrong")
    try:
        with pytest.raises(PlatformError, match=r"SPARK_REMOTE \(sc://127.0.0.1:\d+\) ") as failure:
            made(lake, SALES, InSpark(server.remote))
        assert "\n" not in str(failure.value)
    finally:
        server.kill()
