"""Messages to a topic, received as who subscribed to it does."""

from __future__ import annotations

import pytest

from totesys_assets.notices import Notices
from totesys_assets_tests.deploy.servers import Moto, s3_environment

NOON = 1_767_614_400.0


@pytest.fixture(autouse=True)
def login(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_environment(moto.url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", moto.url)
    # The region is the topic's: boto3 does not read AWS_REGION, and nothing else need be set.
    monkeypatch.delenv("AWS_DEFAULT_REGION")


def test_a_message_arrives_with_subject_sentence_time_and_link(moto: Moto) -> None:
    topic, receive = moto.topic("arrives")
    assert Notices(topic, "https://totesys.example").send("ToteSys: a refresh failed", "It broke.", NOON, "abc")
    (message,) = receive()
    assert message["Subject"] == "ToteSys: a refresh failed"
    assert message["Message"].splitlines() == [
        "It broke.",
        "",
        "2026-01-05 12:00:00 UTC",
        "",
        "https://totesys.example/runs/abc",
    ]


def test_the_longest_and_strangest_subject_is_taken(moto: Moto) -> None:
    topic, receive = moto.topic("strange")
    assert Notices(topic).send("ToteSys: ü\n" + "x" * 500, "y" * 500_000, NOON)
    (message,) = receive()
    assert len(message["Subject"]) == 100
    assert message["Subject"].isascii()


def test_a_topic_that_is_not_there_is_logged_and_fails_nothing(moto: Moto, caplog: pytest.LogCaptureFixture) -> None:
    topic, _ = moto.topic("there")
    assert not Notices(f"{topic}-not").send("ToteSys: a refresh failed", "It broke.", NOON)
    assert "was not sent" in caplog.text
    assert "NotFound" in caplog.text
