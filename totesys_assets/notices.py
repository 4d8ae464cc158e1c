"""Notices: what the platform tells those who look after it, as lines for metric filters and as messages to a topic.

Belongs here: the form of both, and their ways out. Does not belong here: when there is something to tell
(automation/incidents.py), and who notices it (automation/alerts.py).

A line is one JSON object on standard output, where a container's log is made of it. Sensors write them, in the process
that loads the definitions; in runs, Dagster takes standard output for itself.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

log = logging.getLogger(__name__)

# The values of "totesys_event", with the fields beside it: metric filters go by them.
HEARTBEAT = "heartbeat"
UP_TO_DATE = "up_to_date"
REFRESHED = "refreshed"  # run_id, seconds
RUN_FAILED = "run_failed"  # run_id, job
TASK_REFUSED = "task_refused"  # run_id, cause
OVERDUE = "overdue"  # jobs
SWITCHED_OFF = "switched_off"  # parts
UNSENT = "unsent"
STALE = "stale"  # minutes
DEAD_LETTERS = "dead_letters"  # open
BLOCKED = "blocked"  # tables
AUDIT_DIFFERS = "audit_differs"  # findings
MISSED = "missed"  # tables
LOG_LOST = "log_lost"  # minutes
LOG_KEPT = "log_kept"  # percent

# A topic that does not answer must not hold up the sensors.
_SECONDS = 5
_ATTEMPTS = 2
_SUBJECT_LENGTH, _TEXT_LENGTH = 100, 2000  # the first is the limit of SNS


class Notices:
    """Writes lines, and publishes messages to the SNS topic ``topic``; without one there are only lines.

    ``ui_url`` is where the Dagster UI is, for links.
    """

    def __init__(self, topic: str | None = None, ui_url: str | None = None) -> None:
        self._topic, self._ui_url = topic, ui_url

    def line(self, event: str, **fields: str | float) -> None:
        """Write one line, whole, unless standard output is a terminal: people have better ways to see it."""
        if sys.stdout.isatty():
            return
        # One call: another thread, or a process with the same output, must not get in between.
        sys.stdout.write(json.dumps({"totesys_event": event, **fields}) + "\n")
        sys.stdout.flush()

    def send(self, subject: str, what: str, when: float, run_id: str | None = None) -> bool:
        """Publish a message, with a link to the run. False when that failed: that has a line, and fails nothing."""
        if self._topic is None:
            return True
        import boto3  # here: slow to import, and seldom needed
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            client = boto3.session.Session().client(  # of its own: the default one is not made for threads
                "sns",
                region_name=self._topic.split(":")[3],
                config=Config(
                    connect_timeout=_SECONDS, read_timeout=_SECONDS, retries={"total_max_attempts": _ATTEMPTS}
                ),
            )
            client.publish(TopicArn=self._topic, Subject=_subject(subject), Message=self._text(what, when, run_id))
        except (BotoCoreError, ClientError, ValueError) as error:
            log.error("The message %r was not sent to %s: %s", subject, self._topic, error)
            self.line(UNSENT)
            return False
        return True

    def _text(self, what: str, when: float, run_id: str | None) -> str:
        what = what if len(what) <= _TEXT_LENGTH else f"{what[: _TEXT_LENGTH - 1]}…"
        link = [f"{self._ui_url}/runs/{run_id}" if run_id else self._ui_url] if self._ui_url else []
        run = [f"Run {run_id}"] if run_id and not link else []
        return "\n\n".join([what, f"{datetime.fromtimestamp(when, UTC):%Y-%m-%d %H:%M:%S} UTC", *link, *run])


def _subject(text: str) -> str:
    """As SNS takes it: ASCII on one line, at most 100 characters."""
    plain = " ".join(text.split()).encode("ascii", "replace").decode("ascii")
    return plain[:_SUBJECT_LENGTH]
