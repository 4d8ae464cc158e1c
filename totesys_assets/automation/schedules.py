"""The schedules: every night audit, comparison of all content, compaction and purge; newer rates."""

import dagster as dg

from totesys_assets.days import Days, DaySet, partition_range
from totesys_assets.names import AUDIT, EVERYTHING, OTHER_DAYS_TAG
from totesys_assets.settings import Settings


def schedules(
    settings: Settings, compact: dg.JobDefinition, fetch: dg.JobDefinition, purge: dg.JobDefinition
) -> list[dg.ScheduleDefinition]:
    """All of them. ``compact``, ``fetch`` and ``purge`` are jobs that are no selection of assets."""
    return [
        audit_schedule(),
        nightly_schedule(settings),
        compaction_schedule(compact),
        purge_schedule(purge),
        rates_schedule(settings, fetch),
    ]


def range_tags(first: str, last: str) -> dict[str, str]:
    """Tags that make one run cover a range of partitions."""
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def day_tags(days: Days) -> dict[str, str]:
    """Tags of a run that covers ``days``: the last range as the run's partitions, the others in a tag of ours."""
    *others, last = days.ranges
    others_tag = {OTHER_DAYS_TAG: str(DaySet(tuple(others)))} if others else {}
    return range_tags(last.first.isoformat(), last.last.isoformat()) | others_tag


def nightly_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Every night all content is compared, not only fingerprints. It finds and repairs what they missed."""

    @dg.schedule(
        name="nightly_comparison",
        job_name=EVERYTHING,
        cron_schedule="30 2 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Compares every row of the sources with the lake, column by column, at 02:30 UTC.",
    )
    def _nightly(_context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        days = partition_range(settings.first_day)
        return dg.RunRequest(tags=range_tags(days.first.isoformat(), days.last.isoformat()))

    return _nightly


def audit_schedule() -> dg.ScheduleDefinition:
    """Every night, before the comparison repairs anything, the audit finds out whether anything was missed."""
    return dg.ScheduleDefinition(
        name="nightly_audit",
        job_name=AUDIT,
        cron_schedule="0 2 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Runs all checks of the audit at 02:00 UTC.",
    )


def rates_schedule(settings: Settings, job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """On working days, after the European Central Bank has published: about 16:00, sometimes later."""
    running, stopped = dg.DefaultScheduleStatus.RUNNING, dg.DefaultScheduleStatus.STOPPED
    return dg.ScheduleDefinition(
        name="rates_after_publication",
        job=job,
        cron_schedule="20 16,18 * * 1-5",
        execution_timezone="Europe/Berlin",
        default_status=running if settings.rates_url else stopped,
        description="Fetches newer euro reference rates at 16:20 and 18:20 in Frankfurt, Monday to Friday, if "
        "TOTESYS_RATES_URL is set.",
    )


def compaction_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Every night, after the comparison, small files of the lake are merged."""
    return dg.ScheduleDefinition(
        name="nightly_compaction",
        job=job,
        cron_schedule="30 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Merges the lake's small files at 03:30 UTC.",
    )


def purge_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Every night, old records of Dagster's are removed."""
    return dg.ScheduleDefinition(
        name="nightly_purge",
        job=job,
        cron_schedule="30 4 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Removes Dagster's records of runs that ended TOTESYS_RECORD_DAYS ago or longer, at 04:30 UTC.",
    )
