"""Notices: the form of lines and messages, and that neither gets in anybody's way."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from totesys_assets.notices import DEAD_LETTERS, UP_TO_DATE, Notices, _subject

NOON = 1_767_614_400.0
# Nothing listens there.
TOPIC = "arn:aws:sns:eu-west-2:123456789012:alerts"


def test_a_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    notices = Notices()
    notices.line(UP_TO_DATE)
    notices.line(DEAD_LETTERS, open=3)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"totesys_event": "up_to_date"},
        {"totesys_event": "dead_letters", "open": 3},
    ]


def test_nothing_is_written_to_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    Notices().line(UP_TO_DATE)
    assert capsys.readouterr().out == ""


def test_a_message_says_what_and_when_and_leads_to_the_run() -> None:
    notices = Notices(TOPIC, "https://totesys.example")
    text = "It broke.\n\n2026-01-05 12:00:00 UTC\n\n"
    assert notices._text("It broke.", NOON, "abc") == f"{text}https://totesys.example/runs/abc"
    assert notices._text("It broke.", NOON, None) == f"{text}https://totesys.example"
    assert Notices(TOPIC)._text("It broke.", NOON, "abc") == f"{text}Run abc"


def test_an_endless_message_is_cut() -> None:
    assert len(Notices()._text("x" * 300_000, NOON, None)) < 2100


def test_a_subject_is_what_sns_takes() -> None:
    assert _subject("ToteSys: a refresh\nfailed ü " + "x" * 200) == ("ToteSys: a refresh failed ? " + "x" * 200)[:100]


def test_without_a_topic_there_is_nothing_to_send() -> None:
    assert Notices().send("ToteSys: a refresh failed", "It broke.", NOON)


def test_a_topic_that_cannot_be_reached_is_logged_and_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    assert not Notices(TOPIC).send("ToteSys: a refresh failed", "It broke.", NOON)
    (record,) = caplog.records
    assert "'ToteSys: a refresh failed' was not sent" in record.getMessage()
    assert "s3cret" not in caplog.text
    assert json.loads(capsys.readouterr().out) == {"totesys_event": "unsent"}


def test_loading_the_definitions_does_not_import_boto3() -> None:
    code = "import sys, totesys_assets.definitions as d; d.build_definitions(); assert 'boto3' not in sys.modules"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
