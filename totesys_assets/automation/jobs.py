"""Jobs: named selections of assets that a schedule, the UI or the command line starts."""

from typing import Any

import dagster as dg

from totesys_assets.automation.decide import partitioned
from totesys_assets.catalogue.catalogue import Catalogue
from totesys_assets.resources.lake import Lake

# The tag that all refreshes carry: they run one after the other, and the sensor waits for them.
REFRESH_TAG = {"totesys/refresh": "true"}
EVERYTHING = "refresh_everything"


def asset_jobs(catalogue: Catalogue) -> list[Any]:
    """``refresh_everything``, which the nightly schedule runs for all days, and ``backfill_days`` for a range of them.

    (Dagster has no public name for the type of what ``define_asset_job`` returns.)
    """
    keys = [dg.AssetKey(key.split("/")) for key in partitioned(catalogue)]
    everything = dg.define_asset_job(
        EVERYTHING,
        selection=dg.AssetSelection.all(),
        description="Compares the whole content of ToteSys with the lake and brings everything up to date.",
        tags=REFRESH_TAG,
    )
    backfill = dg.define_asset_job(
        "backfill_days",
        selection=dg.AssetSelection.assets(*keys),
        description="Compares, builds and loads a range of days, in one run.",
        tags=REFRESH_TAG,
    )
    return [everything, backfill]


def compact_job() -> dg.JobDefinition:
    """Upkeep of the lake: small files into larger ones."""

    @dg.op(description="Merge the small files that frequent refreshes leave, in every table of the lake.")
    def compact_tables(context: dg.OpExecutionContext, lake: dg.ResourceParam[Lake]) -> None:
        for location, merged in lake.compact().items():
            context.log.info(f"{location}: {merged} files merged")

    @dg.job(name="compact_lake", description="Merges the lake's small files. No row changes.")
    def compact_lake() -> None:
        compact_tables()

    return compact_lake
