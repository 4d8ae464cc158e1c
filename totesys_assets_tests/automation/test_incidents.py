"""Incidents: what is worth a message, how often, and when it is over."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from totesys_assets.automation.incidents import (
    Known,
    is_worth_a_message,
    judge,
    news_of_kept,
    news_of_log,
    news_of_missed,
    overdue,
)

pytestmark = pytest.mark.pure

# A whole hour.
NOON = 1_767_614_400.0
PATIENCE = 30 * 60


def test_the_first_failure_is_worth_a_message() -> None:
    assert is_worth_a_message(NOON, told=None)


def test_of_failures_one_in_an_hour_is_worth_a_message_wherever_the_clock_stands() -> None:
    # The sensor tries again after ten minutes: half a day of it.
    failures = [NOON + minutes * 60 for minutes in range(55, 12 * 60, 10)]
    told: list[float] = []
    for failed in failures:
        if is_worth_a_message(failed, told[-1] if told else None):
            told.append(failed)
    assert len(failures) == 67
    assert [int(moment - NOON) // 60 for moment in told] == list(range(55, 12 * 60, 60))


def test_a_nightly_job_is_overdue_a_day_and_two_hours_after_it_or_the_watch_began() -> None:
    ended = {"audit": NOON - 26 * 3600 - 1, "compact_lake": NOON - 25 * 3600, "refresh_everything": None}
    assert overdue(ended, NOON - 27 * 3600, NOON) == ["audit", "refresh_everything"]
    assert overdue(ended, NOON - 3600, NOON) == []


def test_without_a_cursor_the_clock_starts_now() -> None:
    begun = Known(NOON, since=NOON, at=NOON)
    assert Known.read(None, NOON) == begun
    assert Known.read("nonsense", NOON) == begun
    assert Known.read('{"of": "another version"}', NOON) == begun
    assert Known.read(f'{{"up_to_date": {NOON - 60}}}', NOON) == replace(begun, up_to_date=NOON - 60)  # of an older one


def test_a_clock_that_was_ahead_hides_no_staleness() -> None:
    ahead = Known.read(Known(up_to_date=NOON + 86_400).write(), NOON)
    assert ahead.up_to_date == NOON
    assert judge(ahead, None, None, NOON + 3_600, 1_800).stale_minutes == 60


def test_what_is_known_survives_in_the_cursor() -> None:
    known = Known(NOON, stale_told=True, counted="run", open=3, since=NOON - 60, at=NOON)
    assert Known.read(known.write(), NOON + 60) == replace(known, at=NOON + 60)


def test_a_platform_that_was_up_to_date_a_moment_ago_is_well() -> None:
    verdict = judge(Known(NOON - 60), NOON - 5, None, NOON, PATIENCE)
    assert (verdict.up_to_date, verdict.is_news) == (NOON - 5, True)
    assert (verdict.stale_minutes, verdict.is_over) == (None, False)


def test_what_was_known_before_is_no_news() -> None:
    assert not judge(Known(NOON - 5), NOON - 5, None, NOON, PATIENCE).is_news
    assert not judge(Known(NOON - 5), None, None, NOON, PATIENCE).is_news


@pytest.mark.parametrize(("minutes", "stale"), [(30, None), (31, 31), (125, 125)])
def test_it_is_stale_when_it_was_not_up_to_date_for_too_long(minutes: int, stale: int | None) -> None:
    assert judge(Known(NOON - minutes * 60), None, None, NOON, PATIENCE).stale_minutes == stale


def test_staleness_that_was_told_is_over_when_it_is_up_to_date_again() -> None:
    known = Known(NOON - 3600, stale_told=True)
    assert not judge(known, None, None, NOON, PATIENCE).is_over
    assert judge(known, NOON - 10, None, NOON, PATIENCE).is_over


def test_failures_are_over_once_when_it_is_up_to_date_after_the_last_of_them() -> None:
    known = Known(NOON - 60)
    assert not judge(known, None, NOON - 30, NOON, PATIENCE).is_over
    over = judge(known, NOON - 10, NOON - 30, NOON, PATIENCE)
    assert over.is_over
    assert not judge(Known(over.up_to_date), NOON + 50, NOON - 30, NOON + 60, PATIENCE).is_over


def test_a_success_before_the_failure_does_not_end_it() -> None:
    assert not judge(Known(NOON - 60), NOON - 40, NOON - 30, NOON, PATIENCE).is_over
    assert judge(Known(NOON - 40), NOON - 20, NOON - 30, NOON, PATIENCE).is_over


LOST, MINUTE = datetime.fromtimestamp(NOON, UTC), timedelta(minutes=1)


def test_a_log_that_was_never_lost_is_no_news() -> None:
    assert news_of_log(Known(NOON), None, "", None, LOST) is None


def test_a_log_that_is_lost_is_told_once_and_once_that_it_is_followed_again() -> None:
    loss = LOST, "Its slot is gone.", LOST - MINUTE
    subject, text = news_of_log(Known(NOON), *loss, None) or ("", "")
    assert subject == "ToteSys: its log is not followed"
    assert text.startswith("Its slot is gone. Every version that was committed until 2026-01-05 11:59:00 UTC was seen.")
    told = Known(NOON, log_lost=LOST.isoformat(), log_open=True)
    assert news_of_log(told, *loss, None) is None
    subject, text = news_of_log(told, *loss, LOST + MINUTE) or ("", "")
    assert subject == "ToteSys: its log is followed again"
    assert "since 2026-01-05 12:01:00 UTC" in text
    assert news_of_log(Known(NOON, log_lost=LOST.isoformat()), *loss, LOST + MINUTE) is None


def test_a_log_that_was_lost_between_two_evaluations_is_told_all_the_same() -> None:
    known = Known(NOON, log_lost=(LOST - 60 * MINUTE).isoformat())
    subject, text = news_of_log(known, LOST, "its slot is gone", None, LOST + MINUTE) or ("", "")
    assert subject == "ToteSys: its log was not followed for a while"
    assert text.startswith(
        "From 2026-01-05 12:00:00 UTC: Its slot is gone. It is followed again since 2026-01-05 12:01"
    )


def test_more_than_half_of_the_log_is_told_once_and_once_that_it_is_less() -> None:
    assert news_of_kept(False, 50, 50) is None
    assert (news_of_kept(False, 51, 50) or ("",))[0].startswith("ToteSys: 51 % of the log")
    assert news_of_kept(True, 60, 50) is None
    assert (news_of_kept(True, 50, 50) or ("",))[0] == "ToteSys: its server keeps less log for us again"


def test_what_was_missed_is_told_whenever_a_comparison_finds_more_and_once_that_it_is_over() -> None:
    (subject, text) = news_of_missed({}, {"design": "Found 1."}) or ("", "")
    assert (subject, text) == ("ToteSys: a comparison found what was missed of the table design", "Found 1.")
    assert news_of_missed({"design": "Found 1."}, {"design": "Found 1."}) is None
    assert news_of_missed({"design": "Found 1."}, {"design": "Found 2."}) is not None
    assert (news_of_missed({"design": "x", "staff": "x"}, {}) or ("",))[0] == (
        "ToteSys: nothing is missed any more of 2 tables"
    )
