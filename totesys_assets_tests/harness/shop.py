"""A platform whose ToteSys goes on, round after round, so that not every test begins with a first refresh.

Belongs here: one round of trade, and handing out platforms that are complete.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import dagster as dg

from totesys_assets_tests.conftest import Platform, PostgresServer, make_platform
from totesys_assets_tests.harness.complete import State, require_complete


def prepare(platform: Platform) -> None:
    """Purchase orders enough, of which every round deletes one."""
    platform.sql(
        "INSERT INTO purchase_order SELECT 1000 + number, '2024-08-21 10:00:00', '2024-08-21 10:00:00', 1, 1, "
        "'ITEM', number, 5.25, 2, '2024-08-23', '2024-08-26', 2 FROM generate_series(1, 60) AS number"
    )


def trade(platform: Platform, number: int) -> None:
    """One silent change, one new sale, one deletion, two orders that cannot be typed, one dimension changed."""
    order = "'2024-08-22 08:00:00', '2024-08-22 08:00:00', 1, 1, 1, 10, 2.50, 1"
    platform.sql(
        f"""
        UPDATE sales_order SET units_sold = units_sold + 1 WHERE sales_order_id = 1;
        UPDATE sales_order SET agreed_delivery_date = 'soon' WHERE sales_order_id = {98 + number};
        INSERT INTO sales_order VALUES ({100 + number}, {order}, '2024-08-30', '2024-08-31', 1),
            ({5000 + number}, {order}, 'never', '2024-08-31', 1);
        INSERT INTO transaction VALUES
            ({100 + number}, 'SALE', {100 + number}, NULL, '2024-08-22 08:00:00', '2024-08-22 08:00:00');
        INSERT INTO payment VALUES ({100 + number}, '2024-08-22 08:00:00', '2024-08-22 08:00:00', {100 + number},
            1, 25.00, 1, 1, false, '2024-08-31', 12345678, 87654321);
        DELETE FROM purchase_order WHERE purchase_order_id = {1000 + number};
        UPDATE address SET phone = 'number {number}' WHERE address_id = 2;
        """
    )


class Shop:
    """A platform whose ToteSys goes on from round to round: every round changes all kinds of things at once."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.round = 0
        prepare(platform)
        platform.refresh()
        self.state = require_complete(platform)

    def complete(self) -> State:
        """Require that everything is complete after a refresh that knows nothing of what Dagster knew."""
        with dg.DagsterInstance.ephemeral() as instance:
            replace(self.platform, instance=instance).refresh()
        self.state = require_complete(self.platform, self.state)
        return self.state

    def trade(self) -> None:
        """One silent change, one new sale, one deletion, two orders that cannot be typed, one dimension changed."""
        self.round += 1
        trade(self.platform, self.round)


class Street:
    """Hands out a shop; one in which a test failed is left as it is, and the next test gets a new one."""

    def __init__(self, server: PostgresServer, template: str, folder: Path) -> None:
        self._server, self._template, self._folder = server, template, folder
        self._open = ExitStack()
        self._shop: Shop | None = None

    @contextmanager
    def shop(self) -> Iterator[Shop]:
        """A shop in which everything is complete, and is again when the block ends well."""
        shop, self._shop = self._shop or self._new(), None
        yield shop
        self._shop = shop

    def _new(self) -> Shop:
        name = os.urandom(4).hex()
        source = self._server.template(f"shop_{name}", self._template)
        folder = self._folder / name
        folder.mkdir()
        return Shop(self._open.enter_context(make_platform(source, self._server.database(), folder)))

    def close(self) -> None:
        """Close all shops."""
        self._open.close()


@contextmanager
def opened(server: PostgresServer, template: str, folder: Path) -> Iterator[Street]:
    """A street, for the tests of one module."""
    street = Street(server, template, folder)
    try:
        yield street
    finally:
        street.close()
