"""What the tests of the whole share: shops whose ToteSys goes on from test to test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from totesys_assets_tests.conftest import PostgresServer
from totesys_assets_tests.harness.shop import Street, opened


@pytest.fixture(scope="module")
def street(
    postgres_server: PostgresServer, trade_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Street]:
    """Shops for the tests of one module."""
    with opened(postgres_server, trade_template, tmp_path_factory.mktemp("shops")) as street:
        yield street
