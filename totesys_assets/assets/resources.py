"""The outside world as Dagster's resources: opened when a run or a sensor first needs it, closed at its end.

Belongs here: which of them there are, and how long each is open. Does not belong here: what they do.
"""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import cache, partial
from typing import Any

import dagster as dg

from totesys_assets.databases import Databases, databases
from totesys_assets.lake.tables import Lake
from totesys_assets.load.one_pass import OnePass
from totesys_assets.load.origin import refuse_to_begin_anew
from totesys_assets.names import ADOPT_LAKE_TAG
from totesys_assets.notices import Notices
from totesys_assets.platform import kept_totesys, other_sources, totesys
from totesys_assets.settings import Settings
from totesys_assets.source.shared_snapshot import SharedSnapshots
from totesys_assets.transform.engines.chosen import chosen
from totesys_assets.variables import DUCKDB
from totesys_assets.warehouse.warehouse import Warehouse


def make_resources(settings: Settings) -> dict[str, Any]:
    """The resources, by the names under which assets and sensors ask for them."""
    others = cache(partial(other_sources, settings))  # opened when first needed, and then for as long as the process

    @dg.resource
    def open_databases(_context: dg.InitResourceContext) -> Iterator[Databases]:
        with databases(settings, dagster=False) as urls:
            yield urls

    kept = kept_totesys(settings)
    lake = Lake(settings.lake_uri)  # one for the process: it knows what it has read

    @dg.resource(required_resource_keys={"databases"})
    def open_shared_snapshots(context: dg.InitResourceContext) -> Iterator[SharedSnapshots]:
        url = context.resources.databases.totesys
        is_tick = context.run is None  # of a sensor, which looks again in this process
        with kept.of(url) if is_tick else totesys(settings, url) as source:
            shared = SharedSnapshots((source, *others()))
            try:
                yield shared
            finally:
                shared.close()

    @dg.resource(required_resource_keys={"databases"})
    def open_warehouse(context: dg.InitResourceContext) -> Iterator[Warehouse]:
        warehouse = Warehouse(context.resources.databases.warehouse, settings.warehouse_schema)
        with ExitStack() as stack:
            stack.callback(warehouse.close)
            if context.run is not None:  # it is None for a sensor's tick
                stack.enter_context(warehouse.alive(context.run.run_id))
            yield warehouse

    @dg.resource(required_resource_keys={"databases"})
    def open_one_pass(context: dg.InitResourceContext) -> Iterator[OnePass]:
        is_on = settings.engine == DUCKDB  # another engine is there to make the rows elsewhere
        # One of its own, which is connected to when something is copied: a run that loads nothing needs no warehouse.
        warehouse = Warehouse(context.resources.databases.warehouse, settings.warehouse_schema)
        lake.may_begin = None
        if context.run is None or context.run.tags.get(ADOPT_LAKE_TAG) != "true":
            refuse_to_begin_anew(lake, warehouse, needs_warehouse=False)  # a run may only capture
        with closing(warehouse), closing(OnePass(lake, warehouse, is_on=is_on)) as one_pass:
            yield one_pass

    return {
        "databases": open_databases,
        "one_pass": open_one_pass,
        "shared_snapshots": open_shared_snapshots,
        "warehouse": open_warehouse,
        "lake": lake,
        "engine": chosen(settings),
        "notices": Notices(settings.alert_topic, settings.ui_url),
    }
