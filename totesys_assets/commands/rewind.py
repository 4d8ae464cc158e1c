"""The command that makes the lake what it was: ``totesys restore-lake``.

Belongs here: options and what is printed. Does not belong here: the work itself (lake/rewind.py).
"""

from datetime import datetime

import click

from totesys_assets.commands import interrupts, words
from totesys_assets.commands.options import Moment
from totesys_assets.counting import counted
from totesys_assets.errors import LakeFailed
from totesys_assets.moments import moment_of
from totesys_assets.settings import Settings
from totesys_assets.terminal import err, out, program, say

_HALF = "Some objects may be as they were, and others not yet. Run it again before anything else writes to the lake."


@click.command("restore-lake")
@click.argument("timestamp", type=Moment())
@click.option("--apply", "is_meant", is_flag=True, help="Do it. Without this, say what would be done.")
def restore_lake(timestamp: datetime, is_meant: bool) -> None:
    """Make the lake in a bucket what it was at TIMESTAMP.

    Lost and overwritten objects are put back from the versions that the bucket keeps, and later ones are marked as
    removed; no version is destroyed. Nothing else may write to the lake meanwhile. After an interruption, run it again.

    TIMESTAMP is in UTC unless it has an offset. Everything that was written in that second counts as there.
    """
    from totesys_assets.lake.rewind import Bucket
    from totesys_assets.lake.tables import Lake

    settings, moment = Settings.from_env(), moment_of(timestamp)
    bucket = Bucket(settings.lake_uri)
    with err.status("Listing the versions of all objects"):
        plan = bucket.plan(moment)
    say(out, "", f"{settings.lake_uri} as of {plan.moment:%Y-%m-%d %H:%M:%S} UTC:")
    say(out, "  ", f"{counted(len(plan.put_back), 'object')} to put back ({words.size(plan.size)})")
    say(out, "  ", f"{counted(len(plan.remove), 'object')} to mark as removed")
    say(out, "  ", f"{counted(plan.unchanged, 'object')} unchanged")
    if not plan.is_quiet:
        before = f"{plan.quiet:%Y-%m-%dT%H:%M:%SZ}" if plan.quiet else "none is known"
        say(out, "", f"Something was being written just then. The last moment before at which nothing was: {before}")
    if not is_meant:
        to_do = "To do it, stop what writes to the lake, and add --apply." if plan.steps else "There is nothing to do."
        say(out, "", f"Nothing was changed. {to_do}")
        return
    with err.status("Restoring") as status, interrupts.leaving(_HALF):
        bucket.carry_out(plan, lambda done: status.update(f"Restoring: {done:,} of {plan.steps:,} objects done"))
        left = bucket.plan(moment)
        if left.steps:
            raise LakeFailed(
                f"{counted(left.steps, 'object')} still to be restored: something else writes to the lake. Stop it, "
                "and run this again."
            )
        status.update("Looking whether every table has its files")
        lacking = bucket.lacking(Lake(settings.lake_uri))
    if lacking:
        raise LakeFailed(
            f"Tables name {counted(len(lacking), 'file')} that the lake did not have at that moment, such as "
            f"{lacking[0]}. Restore another moment, seconds earlier or later."
        )
    say(out, "✓ ", f"The lake is what it was. What the warehouse has to do now: {program()} audit says it.")
