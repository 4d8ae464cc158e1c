"""The jobs: named selections of assets that a schedule, the UI or the command line starts."""

import time
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from totesys_assets.assets.describe import failures, own_checks
from totesys_assets.capture.pruning import prune
from totesys_assets.catalogue.catalogue import Catalogue
from totesys_assets.counting import counted
from totesys_assets.dagster_internals.switch import purge_records
from totesys_assets.lake.tables import Lake
from totesys_assets.names import AUDIT, COMPACT, EVERYTHING, FETCH_RATES, PURGE, REFRESH, REFRESH_TAG
from totesys_assets.settings import Settings
from totesys_assets.source.fetched_rates import fetch_rates
from totesys_assets.staleness.decide import partitioned, unpartitioned

_DAY_SECONDS = 86_400
# The first purge of an old platform has years before it, and goes on night by night.
_PURGE_SECONDS = 3600


def asset_jobs(catalogue: Catalogue) -> list[Any]:
    """The jobs ``refresh``, ``refresh_everything``, ``backfill_days`` and ``audit``.

    The sensor and the command line run the stale part of ``refresh``. (Dagster has no public name for the type that
    ``define_asset_job`` returns.)
    """
    refresh = dg.define_asset_job(
        REFRESH,
        selection=_selection([*partitioned(catalogue), *unpartitioned(catalogue)]),
        description="Brings up to date only what changed in the sources. The tags of a run say which tables and days, "
        "and how many versions were added. The sensor changes starts it.",
        tags=REFRESH_TAG,
    )
    everything = dg.define_asset_job(
        EVERYTHING,
        selection=_selection([*partitioned(catalogue), *unpartitioned(catalogue)]),
        description="Compares the whole content of the sources with the lake and brings everything up to date.",
        tags=REFRESH_TAG,
    )
    backfill = dg.define_asset_job(
        "backfill_days",
        selection=_selection(partitioned(catalogue)),
        description="Compares, builds and loads a range of days, in one run.",
        tags=REFRESH_TAG,
    )
    own = own_checks([*partitioned(catalogue), *unpartitioned(catalogue)])
    # Without the refreshes' tag, so that it may run beside one: an audit leaves out what is loaded while it runs.
    audit = dg.define_asset_job(
        AUDIT,
        selection=dg.AssetSelection.all_asset_checks() - dg.AssetSelection.checks(*own),
        description="Checks that the lake and the warehouse hold what the sources hold. Changes nothing.",
    )
    return [refresh, everything, backfill, audit]


def _selection(assets: list[str]) -> dg.AssetSelection:
    """The assets with the checks that they report themselves, without those of the audit."""
    keys = [dg.AssetKey(asset.split("/")) for asset in assets]
    return dg.AssetSelection.assets(*keys).without_checks() | dg.AssetSelection.checks(*own_checks(assets))


def fetch_rates_job(settings: Settings) -> dg.JobDefinition:
    """The job ``fetch_exchange_rates``, which puts a newer archive of euro reference rates beside those there are."""

    @dg.op(description="Fetch the archive at TOTESYS_RATES_URL, and keep it if it is one.")
    def fetch_archive(context: dg.OpExecutionContext) -> None:
        with failures():
            found = fetch_rates(settings)
        context.log.info(f"{found.path}: rates up to {found.newest}{'' if found.is_new else ', as it was before'}")
        for jump in found.jumps:
            context.log.warning(f"More than a tenth in a day: {jump}")

    @dg.job(
        name=FETCH_RATES,
        description="Fetches newer euro reference rates. The sensor changes then finds the new file, and captures it.",
    )
    def fetch_exchange_rates() -> None:
        fetch_archive()

    return fetch_exchange_rates


def compact_job() -> dg.JobDefinition:
    """The job ``compact_lake``, which merges small files of the lake into larger ones."""

    @dg.op(description="Merge the small files that frequent refreshes leave, in every table of the lake.")
    def compact_tables(context: dg.OpExecutionContext, lake: dg.ResourceParam[Lake]) -> None:
        for location, merged in lake.compact().items():
            context.log.info(f"{location}: {counted(merged, 'file')} merged")
        if pruned := prune(lake, datetime.now(UTC).date()):
            context.log.info(f"journal: {counted(pruned, 'change')} of more than a week ago removed")

    @dg.job(name=COMPACT, description="Merges the lake's small files. No row changes.")
    def compact_lake() -> None:
        compact_tables()

    return compact_lake


def purge_job(settings: Settings) -> dg.JobDefinition:
    """The job ``purge_records``, which removes Dagster's records of runs that ended long ago."""

    @dg.op(description="Remove runs, their events and tags, but for what the UI says of assets by them.")
    def purge_old_records(context: dg.OpExecutionContext) -> None:
        days = settings.record_days
        with failures():
            before = time.time() - days * _DAY_SECONDS
            said = purge_records(context.instance, before, _PURGE_SECONDS) if days else "All records are kept."
        context.log.info(said)

    @dg.job(name=PURGE, description="Removes Dagster's records of runs that ended TOTESYS_RECORD_DAYS ago or longer.")
    def purge() -> None:
        purge_old_records()

    return purge
