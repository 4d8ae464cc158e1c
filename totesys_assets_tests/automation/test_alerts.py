"""Alerts: what the sensors tell, read off a real Dagster instance; the topic is the only stand-in."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.errors import DagsterCodeLocationNotFoundError
from dagster._core.execution.build_resources import wrap_resources_for_execution
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.storage.tags import WILL_RETRY_TAG
from dagster._core.test_utils import create_run_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._utils.error import serializable_error_info_from_exc_info

from totesys_assets.assets import blocked
from totesys_assets.automation.duties import ALWAYS_ON, NIGHTLY_JOBS
from totesys_assets.automation.records import newest_tick_failure, newest_trouble
from totesys_assets.capture.ledger import Ledger
from totesys_assets.capture.log_notes import LogNote, read_note
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.definitions import build_definitions
from totesys_assets.errors import PlatformError
from totesys_assets.names import (
    BACKFILL_TAG,
    LEFT_OUT_TAG,
    LOOKED_AT_TAG,
    QUIET_UNTIL_TAG,
    REFRESH_TAG,
    REFUSED_TAG,
    TOLD_TAG,
)
from totesys_assets.notices import HEARTBEAT, Notices
from totesys_assets.staleness.decide import Request
from totesys_assets.staleness.look import Examined
from totesys_assets.staleness.mark import cursor_of
from totesys_assets_tests.audit.test_audit import forge_ledger
from totesys_assets_tests.conftest import Platform


class Letterbox(Notices):
    """A topic whose messages are kept; ``closed``: none gets through."""

    def __init__(self) -> None:
        super().__init__("arn:aws:sns:eu-west-2:123456789012:alerts", "https://totesys.example")
        self.messages: list[tuple[str, str]] = []
        self.closed = False

    def send(self, subject: str, what: str, when: float, run_id: str | None = None) -> bool:
        if not self.closed:
            self.messages.append((subject, self._text(what, when, run_id)))
        return not self.closed

    @property
    def subjects(self) -> list[str]:
        return [subject for subject, _ in self.messages]


@dataclass
class Watcher:
    """The sensors over an instance, each with its cursor from one evaluation to the next."""

    platform: Platform
    instance: dg.DagsterInstance
    capsys: pytest.CaptureFixture[str]
    letterbox: Letterbox = field(default_factory=Letterbox)
    cursors: dict[str, str | None] = field(default_factory=dict)
    heartbeats: int = 0

    def begin(self, *sensors: str) -> None:
        """Evaluate the sensors for the first time, when nothing has happened yet."""
        for sensor in sensors:
            assert self.evaluate(sensor) == []

    def evaluate(self, sensor: str) -> list[dict[str, Any]]:
        """Evaluate a sensor once: the lines that it wrote, but for heartbeats, which are counted."""
        self.capsys.readouterr()
        definitions = build_definitions(self.platform.settings, {"notices": self.letterbox})
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(sensor),
            definitions=definitions,
            resources=wrap_resources_for_execution(definitions.resources or {}),
        ) as context:
            tick = definitions.resolve_sensor_def(sensor).evaluate_tick(context)
        assert [reaction.error for reaction in tick.dagster_run_reactions or [] if reaction.error] == []
        self.cursors[sensor] = tick.cursor
        lines = [json.loads(line) for line in self.capsys.readouterr().out.splitlines()]
        self.heartbeats += lines.count({"totesys_event": HEARTBEAT})
        return [line for line in lines if line["totesys_event"] != HEARTBEAT]

    def known(self, **values: Any) -> None:
        """As if the sensor ``freshness`` had found so before."""
        self.cursors["freshness"] = json.dumps({**json.loads(self.cursors["freshness"] or ""), **values})

    def stale(self, minutes: float) -> None:
        """As if the last time that all was up to date were so long ago."""
        self.known(up_to_date=time.time() - 60 * minutes)

    def run_ended(self, status: dg.DagsterRunStatus, tags: dict[str, str] | None = None, why: str = "It broke.") -> str:
        """Id of a refresh that has just ended."""
        tags = {**REFRESH_TAG, **(tags or {})}
        run = create_run_for_test(self.instance, tags=tags, status=dg.DagsterRunStatus.STARTED)
        if status == dg.DagsterRunStatus.FAILURE:
            self.instance.report_run_failed(run, why)
        else:
            event = dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, run.job_name)
            self.instance.report_dagster_event(event, run_id=run.run_id)
        return str(run.run_id)

    def nothing_changed(self) -> None:
        """A tick of ``changes`` that has just looked and found nothing to do."""
        self.tick_ended(TickStatus.SKIPPED, "It does not matter what it says.")
        (state,) = self.instance.all_instigator_state()
        data = SensorInstigatorData(cursor=cursor_of("mark", time.time()))
        self.instance.update_instigator_state(state.with_data(data))

    def tick_ended(self, status: TickStatus, reason: str | None = None, error: Exception | None = None) -> None:
        """A tick of ``changes`` that has just ended."""
        location = InProcessCodeLocationOrigin(LoadableTargetOrigin(), location_name="here")
        origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), "changes")
        instance = self.instance
        if not instance.get_instigator_state(origin.get_id(), origin.get_selector().get_id()):
            instance.add_instigator_state(
                InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.DECLARED_IN_CODE)
            )
        tick = instance.create_tick(
            TickData(
                instigator_origin_id=origin.get_id(),
                instigator_name="changes",
                instigator_type=InstigatorType.SENSOR,
                status=TickStatus.STARTED,
                timestamp=time.time(),
                selector_id=origin.get_selector().get_id(),
            )
        )
        try:
            raise error or ValueError
        except Exception:
            info = serializable_error_info_from_exc_info(sys.exc_info())
        tick = tick.with_status(status, **({"error": info} if error else {}))
        instance.update_tick(tick.with_reason(reason) if reason else tick)


@pytest.fixture
def watcher(platform: Platform, capsys: pytest.CaptureFixture[str]) -> Iterator[Watcher]:
    """All sensors over an instance that keeps ticks."""
    with dg.instance_for_test() as instance:
        watcher = Watcher(platform, instance, capsys)
        watcher.begin(*SENSORS)
        yield watcher


@pytest.fixture
def run_watcher(platform: Platform, capsys: pytest.CaptureFixture[str]) -> Watcher:
    """The sensors that are about runs, over the platform's own instance, which is quicker and keeps no ticks."""
    watcher = Watcher(platform, platform.instance, capsys)
    watcher.begin("alert_on_failure", "alert_on_audit")
    return watcher


SENSORS = ("alert_on_failure", "alert_on_audit", "freshness")
SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


def test_a_failed_refresh_is_told_with_its_reason_and_a_link(watcher: Watcher) -> None:
    run_id = watcher.run_ended(FAILURE, why="The disk is full.")
    (line,) = watcher.evaluate("alert_on_failure")
    assert line == {"totesys_event": "run_failed", "run_id": run_id, "job": "_test_job_"}
    ((subject, text),) = watcher.letterbox.messages
    assert subject == "ToteSys: a refresh failed"
    assert text.startswith("The disk is full.\n\n20")
    assert text.endswith(f"https://totesys.example/runs/{run_id}")
    assert watcher.evaluate("alert_on_failure") == []


def test_refreshes_that_fail_within_an_hour_have_a_line_each_and_one_message(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ended in (FAILURE, FAILURE, SUCCESS, FAILURE):
        watcher.run_ended(ended)
        assert len(watcher.evaluate("alert_on_failure")) == (ended == FAILURE)
        watcher.evaluate("freshness")
    watcher.run_ended(SUCCESS)
    watcher.evaluate("freshness")
    assert watcher.letterbox.subjects == ["ToteSys: a refresh failed", "ToteSys: up to date again"]
    monkeypatch.setattr("totesys_assets.automation.incidents._HOUR", 0)  # as if it were an hour later
    watcher.run_ended(FAILURE)
    watcher.evaluate("alert_on_failure")
    assert watcher.letterbox.subjects[2:] == ["ToteSys: a refresh failed"]


def test_a_failure_that_could_not_be_told_is_no_reason_to_keep_quiet_about_the_next(watcher: Watcher) -> None:
    watcher.letterbox.closed = True
    watcher.run_ended(FAILURE)
    watcher.evaluate("alert_on_failure")
    watcher.letterbox.closed = False
    watcher.run_ended(FAILURE)
    watcher.evaluate("alert_on_failure")
    assert watcher.letterbox.subjects == ["ToteSys: a refresh failed"]


def test_a_run_for_which_ecs_began_no_task_has_a_line_with_the_cause(watcher: Watcher) -> None:
    run_id = watcher.run_ended(FAILURE, {REFUSED_TAG: "quota"}, why="ECS began no task for the run.")
    assert watcher.evaluate("alert_on_failure")[1:] == [
        {"totesys_event": "task_refused", "run_id": run_id, "cause": "quota"}
    ]
    assert watcher.letterbox.subjects == ["ToteSys: a refresh failed"]


def test_a_failure_that_dagster_tries_again_is_not_told_and_hides_no_other(watcher: Watcher) -> None:
    watcher.run_ended(FAILURE, {WILL_RETRY_TAG: "true"})
    assert watcher.evaluate("alert_on_failure") == []
    assert watcher.letterbox.messages == []
    watcher.run_ended(FAILURE)
    assert len(watcher.evaluate("alert_on_failure")) == 1
    assert watcher.letterbox.subjects == ["ToteSys: a refresh failed"]


@pytest.mark.refreshed
def test_a_failed_table_is_told_in_the_words_of_its_asset(run_watcher: Watcher) -> None:
    platform = run_watcher.platform
    platform.sql("UPDATE design SET design_name = 'new'")
    seen = platform.look()
    platform.sql("ALTER TABLE design RENAME TO designs")
    (request,) = seen.requests
    assert not platform.run(request).success
    (line,) = run_watcher.evaluate("alert_on_failure")
    ((_, text),) = run_watcher.letterbox.messages
    assert '"design"' in text.splitlines()[0]
    assert "Traceback" not in text
    assert line["job"] == "refresh"


def test_failures_of_other_jobs_are_told_by_their_names_once_an_hour_each(watcher: Watcher) -> None:
    for job in ("audit", "compact_lake", "audit"):
        run = create_run_for_test(watcher.instance, job_name=job, status=dg.DagsterRunStatus.STARTED)
        watcher.instance.report_run_failed(run)
        watcher.evaluate("alert_on_failure")
    assert watcher.letterbox.subjects == ["ToteSys: the job audit failed", "ToteSys: the job compact_lake failed"]


def test_every_evaluation_is_a_heartbeat_as_long_as_dagster_s_database_answers(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher.heartbeats = 0
    for _ in range(3):
        watcher.evaluate("freshness")
    assert watcher.heartbeats == 3
    monkeypatch.setattr(watcher.instance, "get_run_records", None)
    watcher.capsys.readouterr()
    with pytest.raises(TypeError):
        watcher.evaluate("freshness")
    assert HEARTBEAT not in watcher.capsys.readouterr().out


def test_the_seconds_from_commit_to_warehouse_are_told_of_each_refresh_once(watcher: Watcher) -> None:
    def told() -> list[float]:
        lines = watcher.evaluate("freshness")
        return [line["seconds"] for line in lines if line["totesys_event"] == "refreshed"]

    begun = time.time()
    watcher.run_ended(SUCCESS, {QUIET_UNTIL_TAG: "0.000"})  # a first load: nothing was ever up to date
    assert told() == []
    watcher.run_ended(FAILURE, {QUIET_UNTIL_TAG: "0.000"})
    watcher.run_ended(SUCCESS, {QUIET_UNTIL_TAG: "0.000"})  # since the look of the first load
    (seconds,) = told()
    assert 0 <= seconds < 60
    # The look of the refresh before is newer than what the sensor knew.
    watcher.run_ended(SUCCESS, {QUIET_UNTIL_TAG: f"{begun - 100:.3f}", LOOKED_AT_TAG: f"{begun - 0.01:.3f}"})
    watcher.run_ended(SUCCESS, {QUIET_UNTIL_TAG: f"{begun - 100:.3f}"})
    first, second = told()
    assert max(first, second) < 60
    # Nobody knows of when these are, or they left something out.
    watcher.run_ended(SUCCESS)
    watcher.run_ended(SUCCESS, {QUIET_UNTIL_TAG: f"{begun:.3f}", LEFT_OUT_TAG: "One table was left out."})
    watcher.run_ended(FAILURE, {QUIET_UNTIL_TAG: f"{begun:.3f}"})
    assert told() == []


def test_a_nightly_job_of_which_no_run_ended_is_told_once_and_again_when_one_has(watcher: Watcher) -> None:
    day = 26 * 3600
    watcher.known(since=time.time() - day + 60, at=time.time())
    assert watcher.evaluate("freshness") == []
    watcher.known(since=time.time() - day - 60, at=time.time())
    for _ in range(2):
        assert watcher.evaluate("freshness") == [{"totesys_event": "overdue", "jobs": len(NIGHTLY_JOBS)}]
    (subject,) = watcher.letterbox.subjects
    assert subject == f"ToteSys: no run of {' and '.join(NIGHTLY_JOBS)} ended last night"
    for job in NIGHTLY_JOBS:
        run = create_run_for_test(watcher.instance, job_name=job, status=dg.DagsterRunStatus.STARTED)
        watcher.instance.report_run_failed(run)  # which is told by itself
    assert watcher.evaluate("freshness") == []
    assert watcher.letterbox.subjects[1:] == [f"ToteSys: a run of {' and '.join(NIGHTLY_JOBS)} has ended again"]


def test_a_machine_that_slept_owes_no_night(watcher: Watcher) -> None:
    watcher.known(since=time.time() - 10**6, at=time.time() - 10**5)
    assert watcher.evaluate("freshness") == []


def test_what_is_switched_off_is_told_once_and_again_when_it_is_on(watcher: Watcher) -> None:
    watcher.tick_ended(TickStatus.SKIPPED, "It does not matter what it says.")
    (state,) = watcher.instance.all_instigator_state()
    watcher.instance.update_instigator_state(state.with_status(InstigatorStatus.STOPPED))
    for _ in range(2):
        assert watcher.evaluate("freshness") == [{"totesys_event": "switched_off", "parts": 1}]
    assert watcher.letterbox.subjects == ["ToteSys: switched off: changes"]
    watcher.instance.update_instigator_state(state.with_status(InstigatorStatus.RUNNING))
    assert watcher.evaluate("freshness") == []
    assert watcher.letterbox.subjects[1:] == ["ToteSys: on again: changes"]


def test_all_that_is_on_by_itself_is_watched(watcher: Watcher) -> None:
    repository = watcher.platform.definitions().get_repository_def()
    sensors = {each.name for each in repository.sensor_defs if each.default_status.value == "RUNNING"}
    schedules = {each.name for each in repository.schedule_defs if each.default_status.value == "RUNNING"}
    # Without the first, there is no heartbeat; the second acts once.
    assert sensors | schedules == {*ALWAYS_ON, "freshness", "first_audit"}
    nightly = {each.job_name for each in repository.schedule_defs if each.name in ALWAYS_ON}
    assert nightly == set(NIGHTLY_JOBS)


def test_a_look_that_found_nothing_to_do_and_a_refresh_that_succeeded_are_told_once(watcher: Watcher) -> None:
    watcher.nothing_changed()
    assert watcher.evaluate("freshness") == [{"totesys_event": "up_to_date"}]
    assert watcher.evaluate("freshness") == []
    watcher.run_ended(SUCCESS)
    assert {"totesys_event": "up_to_date"} in watcher.evaluate("freshness")
    assert {"totesys_event": "up_to_date"} not in watcher.evaluate("freshness")


def test_a_tick_that_did_not_look_and_a_refresh_that_failed_do_not_make_it_up_to_date(watcher: Watcher) -> None:
    watcher.tick_ended(TickStatus.SKIPPED, "A refresh is under way; the next look sees everything.")
    watcher.tick_ended(TickStatus.FAILURE, error=ValueError("no"))
    watcher.run_ended(FAILURE)
    watcher.run_ended(SUCCESS, {LEFT_OUT_TAG: "One table was left out."})
    watcher.run_ended(SUCCESS, {BACKFILL_TAG: "true"})
    assert {"totesys_event": "up_to_date"} not in watcher.evaluate("freshness")


def test_a_tick_that_the_end_of_the_daemon_cut_off_is_no_trouble(watcher: Watcher) -> None:
    gone = DagsterCodeLocationNotFoundError("Location totesys_assets does not exist in workspace")
    watcher.tick_ended(TickStatus.FAILURE, error=gone)
    assert newest_trouble(watcher.instance) is None
    assert newest_tick_failure(watcher.instance) is None
    watcher.tick_ended(TickStatus.FAILURE, error=ValueError("no"))
    trouble = newest_trouble(watcher.instance)
    assert trouble is not None
    assert trouble[2] == "ValueError: no"


def test_staleness_is_told_once_with_what_went_wrong_and_again_when_it_is_over(watcher: Watcher) -> None:
    watcher.tick_ended(TickStatus.FAILURE, error=dg.Failure('Table "design" of ToteSys has changed.'))
    watcher.stale(31)
    for _ in range(3):
        assert watcher.evaluate("freshness") == [{"totesys_event": "stale", "minutes": 31}]
    ((subject, text),) = watcher.letterbox.messages
    assert subject == "ToteSys: stale for 31 minutes"
    assert text.startswith('Table "design" of ToteSys has changed.\n')
    watcher.nothing_changed()
    for _ in range(2):
        watcher.evaluate("freshness")
    assert watcher.letterbox.subjects[1:] == ["ToteSys: up to date again"]


def test_a_table_that_is_left_out_makes_a_busy_platform_stale(watcher: Watcher) -> None:
    run_id = watcher.run_ended(SUCCESS, {LEFT_OUT_TAG: 'Table "design" of ToteSys has changed.'})
    watcher.stale(31)
    assert {"totesys_event": "stale", "minutes": 31} in watcher.evaluate("freshness")
    ((_, text),) = watcher.letterbox.messages
    assert text.startswith('Table "design" of ToteSys has changed.\n')
    assert text.endswith(f"/runs/{run_id}")


def test_staleness_without_a_failure_says_where_to_look(watcher: Watcher) -> None:
    watcher.stale(31)
    watcher.evaluate("freshness")
    ((_, text),) = watcher.letterbox.messages
    assert text.startswith("Nothing failed since then: check that Dagster's daemon runs")


def test_a_message_that_did_not_get_through_is_sent_again(watcher: Watcher) -> None:
    watcher.letterbox.closed = True
    watcher.stale(31)
    watcher.evaluate("freshness")
    watcher.letterbox.closed = False
    watcher.evaluate("freshness")
    watcher.evaluate("freshness")
    assert watcher.letterbox.subjects == ["ToteSys: stale for 31 minutes"]


def test_the_end_of_failures_is_told_once(watcher: Watcher) -> None:
    watcher.run_ended(FAILURE, {TOLD_TAG: "true"})
    watcher.run_ended(FAILURE)
    watcher.evaluate("freshness")
    assert watcher.letterbox.subjects == []
    watcher.nothing_changed()
    watcher.evaluate("freshness")
    watcher.nothing_changed()
    watcher.evaluate("freshness")
    assert watcher.letterbox.subjects == ["ToteSys: up to date again"]


def test_a_blocked_table_is_told_once_and_again_when_it_is_over(watcher: Watcher) -> None:
    def look(**problems: str) -> list[dict[str, Any]]:
        examined = Examined({table: PlatformError(problem) for table, problem in problems.items()})
        blocked.report(watcher.instance, catalogue(), examined)
        return watcher.evaluate("freshness")

    assert look() == []
    assert look(design="It is locked by process 7.") == [{"totesys_event": "blocked", "tables": 1}]
    assert look(design="It is locked by process 8.") == [{"totesys_event": "blocked", "tables": 1}]
    ((subject, text),) = watcher.letterbox.messages
    assert subject == "ToteSys: the table design cannot be captured"
    assert text.startswith("It is locked by process 7.\n")
    watcher.letterbox.closed = True
    look(staff="No.", address="No.")
    watcher.letterbox.closed = False
    look(staff="No.", address="No.")
    subject, text = watcher.letterbox.messages[-1]
    assert subject == "ToteSys: 2 tables cannot be captured"
    assert text.startswith("No.\nCaptured again: design.\n")
    assert look() == look() == []
    assert watcher.letterbox.subjects[2:] == ["ToteSys: 2 tables can be captured again"]


@pytest.mark.refreshed
def test_open_dead_letters_are_counted_after_a_refresh_and_told_every_minute(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = watcher.platform
    watcher.run_ended(SUCCESS)
    letters = [line for line in watcher.evaluate("freshness") if line["totesys_event"] == "dead_letters"]
    assert letters == [{"totesys_event": "dead_letters", "open": 0}]
    platform.sql("UPDATE sales_order SET agreed_delivery_date = 'soon'")
    platform.refresh()
    watcher.run_ended(SUCCESS)
    assert {"totesys_event": "dead_letters", "open": 1} in watcher.evaluate("freshness")
    monkeypatch.setattr("totesys_assets.automation.freshness.open_dead_letters", None)  # and not counted again
    assert watcher.evaluate("freshness") == [{"totesys_event": "dead_letters", "open": 1}]


def test_a_lake_that_cannot_be_read_does_not_silence_the_rest(watcher: Watcher) -> None:
    log = Path(watcher.platform.settings.lake_uri) / "dead_letter" / "_delta_log"
    log.mkdir(parents=True)
    (log / f"{0:020}.json").write_text("no JSON", encoding="ascii")
    watcher.run_ended(SUCCESS)
    assert watcher.evaluate("freshness") == [{"totesys_event": "up_to_date"}]


def test_a_log_that_is_not_followed_is_told_by_what_the_lake_notes(watcher: Watcher) -> None:
    watcher.platform.settings = replace(watcher.platform.settings, follows_log=True)
    ledger = Ledger(watcher.platform.lake)
    followed = LogNote().begun()
    ledger.append([followed.entry])
    assert watcher.evaluate("freshness") == [{"totesys_event": "log_kept", "percent": 0}]
    lost = followed.lost("Its slot is gone.", None)
    for reason in ("Its slot is gone.", "There is no door."):  # it is tried again each minute
        ledger.append([lost.lost(reason, None).entry])
        assert watcher.evaluate("freshness")[1:] == [{"totesys_event": "log_lost", "minutes": 0}]
    ((subject, text),) = watcher.letterbox.messages
    assert subject == "ToteSys: its log is not followed"
    assert text.startswith("Its slot is gone. Every version that was committed until ")
    ledger.append([read_note(watcher.platform.lake).begun().entry])
    assert watcher.evaluate("freshness")[1:] == watcher.evaluate("freshness")[1:] == []
    assert watcher.letterbox.subjects[1:] == ["ToteSys: its log is followed again"]
    again = read_note(watcher.platform.lake).lost("Another read its slot.", None).begun()
    ledger.append([again.entry])
    assert watcher.evaluate("freshness")[1:] == [{"totesys_event": "log_lost", "minutes": 0}]
    assert watcher.evaluate("freshness")[1:] == []
    assert watcher.letterbox.subjects[2:] == ["ToteSys: its log was not followed for a while"]


def test_a_log_of_which_too_much_is_kept_is_told(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher.platform.settings = replace(watcher.platform.settings, follows_log=True)
    for percent in (51, 60, 20, 20):
        monkeypatch.setattr("totesys_assets.automation.freshness.kept_percent", lambda _, now=percent: now)
        assert watcher.evaluate("freshness") == [{"totesys_event": "log_kept", "percent": percent}]
    assert [subject.partition(":")[2] for subject in watcher.letterbox.subjects] == [
        " 51 % of the log that its server may keep for us is kept",
        " its server keeps less log for us again",
    ]


def test_where_the_log_is_not_wanted_nothing_is_told_of_it(watcher: Watcher) -> None:
    Ledger(watcher.platform.lake).append([LogNote().begun().lost("it was switched off", None).entry])
    assert watcher.evaluate("freshness") == []


@pytest.mark.refreshed
def test_what_a_comparison_found_missed_has_a_red_check_and_is_told_until_the_next_finds_nothing(
    run_watcher: Watcher,
) -> None:
    platform = run_watcher.platform
    everything = Request(("totesys/design", "totesys/sales_order"), platform.all_days)

    def told() -> list[dict[str, Any]]:
        return [line for line in run_watcher.evaluate("freshness") if line["totesys_event"] == "missed"]

    platform.sql("UPDATE design SET design_name = 'unseen' WHERE design_id = 1")
    forge_ledger(platform, "design")
    assert platform.run(everything).success
    assert told() == told() == [{"totesys_event": "missed", "tables": 1}]
    ((subject, text),) = run_watcher.letterbox.messages
    assert subject == "ToteSys: a comparison found what was missed of the table design"
    assert '1 version of "design" of which no fingerprint had told' in text
    platform.sql("UPDATE design SET design_name = 'seen' WHERE design_id = 1")
    platform.refresh()
    assert told() == [{"totesys_event": "missed", "tables": 1}]
    assert platform.run(everything).success
    assert told() == []
    assert run_watcher.letterbox.subjects[1:] == ["ToteSys: nothing is missed any more of the table design"]


def audit_run(watcher: Watcher) -> None:
    platform = watcher.platform
    job = platform.definitions().get_repository_def().get_job("audit")
    assert job.execute_in_process(instance=platform.instance).success


@pytest.mark.refreshed
def test_what_the_audit_found_is_counted_and_told_table_by_table(run_watcher: Watcher) -> None:
    platform = run_watcher.platform
    audit_run(run_watcher)
    assert run_watcher.evaluate("alert_on_audit") == []
    with psycopg.connect(platform.warehouse_url) as connection:
        connection.execute("UPDATE fact_sales_order SET units_sold = units_sold + 1")
    audit_run(run_watcher)
    (line,) = run_watcher.evaluate("alert_on_audit")
    assert line == {"totesys_event": "audit_differs", "findings": 3}  # the records, the money and a mart
    ((subject, text),) = run_watcher.letterbox.messages
    assert subject == "ToteSys: differences found by the audit: 3"
    differing = {"fact_sales_order": 2, "mart_sales_day": 1}
    assert {table: text.count(f"warehouse/{table}: ") for table in differing} == differing


def test_the_sensors_are_on_by_themselves(watcher: Watcher) -> None:
    definitions = watcher.platform.definitions()
    assert {definitions.resolve_sensor_def(name).default_status for name in SENSORS} == {dg.DefaultSensorStatus.RUNNING}
