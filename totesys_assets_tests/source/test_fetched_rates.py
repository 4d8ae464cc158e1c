"""Fetching rates: an archive is kept whole or not at all, whatever the server does; and what is dropped beside it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.capture.difference import Captured, capture
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.commands import main
from totesys_assets.days import DayRange
from totesys_assets.errors import ConnectionFailed, PlatformError, SettingsError
from totesys_assets.lake.tables import Lake
from totesys_assets.reader import read_arrow
from totesys_assets.settings import Settings
from totesys_assets.source import ecb, fetched_rates
from totesys_assets.source.fetched_rates import fetch_rates
from totesys_assets_tests.harness import RATES

pytestmark = pytest.mark.pure

TABLE = catalogue().source["exchange_rate"]
DAYS = DayRange(date(2024, 8, 19), date(2024, 9, 6))


def archive(*lines: str) -> bytes:
    """An archive with a line for each day, as ``2024-08-30,1.1,0.84``."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("eurofxref-hist.csv", "Date,USD,GBP,\n" + "".join(f"{line},\n" for line in lines))
    return made.getvalue()


NEWER = archive("2024-09-03,1.11,0.84", "2024-09-02,1.10,0.84")

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """A server on this machine that gives the answers of a test, one after the other, and the last again and again."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            """Answers as the test says."""

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                answer = outer.answers[min(len(outer.asked), len(outer.answers)) - 1]
                answer(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses, and no rates that are too old: those of these tests are of one year."""
    monkeypatch.setattr(fetched_rates, "MOST_DAYS", 100_000)
    monkeypatch.setattr(fetched_rates, "PAUSES", (0.01, 0.01))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def content(body: bytes, code: int = 200) -> Answer:
    def give(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return give


def redirect(to: str) -> Answer:
    def give(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", to)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return give


def cut(request: BaseHTTPRequestHandler) -> None:
    """An answer that ends before its end."""
    request.send_response(200)
    request.send_header("Content-Length", str(len(NEWER)))
    request.end_headers()
    request.wfile.write(NEWER[:100])


def endless(request: BaseHTTPRequestHandler) -> None:
    """An answer without an end."""
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(b"0" * 100_000)
    except OSError:
        return


def trickling(request: BaseHTTPRequestHandler) -> None:
    """An answer of a byte every tenth of a second."""
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(b"0")
            time.sleep(0.1)
    except OSError:
        return


def silent(request: BaseHTTPRequestHandler) -> None:
    """No answer for a while."""
    time.sleep(1)
    request.close_connection = True


def settings(folder: Path, url: str | None) -> Settings:
    return Settings.from_env(
        {
            "TOTESYS_HOME": str(folder / "home"),
            "TOTESYS_FIRST_DAY": "2024-08-19",
            "TOTESYS_RATES_ARCHIVE": str(RATES),
            **({"TOTESYS_RATES_URL": url} if url else {}),
        }
    )


def dropped(folder: Path) -> list[str]:
    """The names of all files where archives are dropped, also of hidden ones."""
    place = folder / "home" / "files" / "rates"
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


def captured(given: Settings) -> Captured:
    lake = Lake(given.lake_uri)
    with ecb.open_source(given, {TABLE.name: TABLE}).snapshot() as snapshot:
        return capture(snapshot, lake, TABLE, all_days=DAYS, days=DAYS, run_id="test", changes_only=True)


def held(given: Settings) -> dict[str, str]:
    rows = read_arrow(TABLE.name, lake=given.lake_uri).to_pylist()
    return {row["exchange_rate_id"]: f"{row['units_per_euro']:f}".rstrip("0") for row in rows}


def test_an_archive_is_kept_under_its_newest_day_and_captured(server: Server, tmp_path: Path) -> None:
    server.answers = [content(NEWER)]
    given = settings(tmp_path, server.url)
    first = captured(given).total("inserted")
    found = fetch_rates(given)
    assert (found.path, found.newest, found.is_new) == ("rates/eurofxref-2024-09-03.zip", "2024-09-03", True)
    assert dropped(tmp_path) == ["eurofxref-2024-09-03.zip"]
    assert captured(given).total("inserted") == 4
    assert len(held(given)) == first + 4
    assert fetch_rates(given).is_new is False
    assert captured(given).versions == 0


def test_a_revised_rate_is_an_update_and_an_archive_of_few_days_takes_nothing_away(
    server: Server, tmp_path: Path
) -> None:
    server.answers = [content(NEWER), content(archive("2024-09-03,1.12,0.84"))]
    given = settings(tmp_path, server.url)
    fetch_rates(given)
    captured(given)
    before = held(given)
    fetch_rates(given)
    revised = captured(given)
    assert (revised.total("updated"), revised.total("inserted")) == (1, 0)
    assert before["2024-09-03 USD"] == "1.11"
    assert held(given)["2024-09-03 USD"] == "1.12"


def test_a_day_that_only_an_older_archive_has_stays(server: Server, tmp_path: Path) -> None:
    later = [archive("2024-09-04,1.13,0.85"), archive("2024-09-05,1.14,0.85", "2024-09-04,1.13,0.85")]
    server.answers = [content(NEWER), *map(content, later)]
    given = settings(tmp_path, server.url)
    for _ in server.answers:
        fetch_rates(given)
        captured(given)
    assert {"2024-09-02 USD", "2024-09-03 USD", "2024-09-04 USD", "2024-09-05 USD"} < set(held(given))
    assert dropped(tmp_path) == ["eurofxref-2024-09-03.zip", "eurofxref-2024-09-05.zip"]  # what says nothing is removed


@pytest.mark.parametrize(
    ("answer", "why", "asked"),
    [
        (content(b"no", 404), "it answers 404", 1),
        (content(b"no", 503), "it answers 503", 3),
        (content(b"<html>"), "cannot be read as euro reference rates", 1),
        (content(NEWER[:-10]), "cannot be read as euro reference rates", 1),
        (content(archive()), "it has no day", 1),
        (content(archive(f"{datetime.now(UTC).date() + timedelta(days=3)},1,1")), "which cannot be", 1),
        (content(archive("tomorrow,1,1")), "it has a day 'tomorrow'", 1),
        (content(archive("2024-02-30,1,1")), "which cannot be", 1),
        (cut, "peer closed connection", 3),
        (silent, "timed out", 3),
        (endless, "it has more than 1,000,000 bytes", 1),
        (trickling, "it took longer than 1 s", 1),
        (redirect("http://example.com/rates.zip"), "it leads to another place, http://example.com", 1),
        (redirect("file:///etc/passwd"), "it leads to another place", 1),
        (redirect("/again"), "more than 3 times", 4),
    ],
)
def test_whatever_is_no_archive_raises_a_sentence_and_leaves_what_was_there(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, why: str, asked: int
) -> None:
    monkeypatch.setattr(fetched_rates, "MOST_SECONDS", 1.0 if answer is trickling else 20.0)
    monkeypatch.setattr(fetched_rates, "MOST_BYTES", 1_000_000)
    monkeypatch.setattr(fetched_rates, "_READ_SECONDS", 0.3 if answer is silent else 5.0)
    server.answers = [content(NEWER), answer]
    given = settings(tmp_path, server.url)
    fetch_rates(given)
    with pytest.raises(PlatformError) as raised:
        fetch_rates(given)
    assert why in str(raised.value)
    assert len(server.asked) == 1 + asked
    assert dropped(tmp_path) == ["eurofxref-2024-09-03.zip"]


def test_a_server_that_fails_once_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.answers = [content(b"", 500), cut, redirect("/there"), content(NEWER)]
    assert fetch_rates(settings(tmp_path, server.url)).is_new
    assert server.asked == ["/", "/", "/", "/there"]


def test_a_server_that_is_not_there_is_said(server: Server, tmp_path: Path) -> None:
    server.close()
    with pytest.raises(ConnectionFailed, match=r"were not fetched from TOTESYS_RATES_URL: .*refused"):
        fetch_rates(settings(tmp_path, server.url))
    assert dropped(tmp_path) == []


def test_rates_that_end_too_long_ago_are_kept_and_raise(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetched_rates, "MOST_DAYS", 6)
    today = datetime.now(UTC).date()
    ends = [today - timedelta(days=7), today - timedelta(days=6)]
    server.answers = [content(archive(f"{end},1.11,0.84")) for end in ends]
    given = settings(tmp_path, server.url)
    with pytest.raises(PlatformError, match=r"is 7 days old, of .* What there is was kept"):
        fetch_rates(given)
    assert dropped(tmp_path) == [f"eurofxref-{ends[0]}.zip"]
    assert fetch_rates(given).newest == str(ends[1])


def test_a_rate_that_jumps_is_named(server: Server, tmp_path: Path) -> None:
    server.answers = [content(archive("2024-09-03,1.26,0.90", "2024-09-02,1.14,0.99", "2024-09-01,9,9"))]
    assert fetch_rates(settings(tmp_path, server.url)).jumps == ("USD 1.14 to 1.26",)


def test_what_is_no_rate_is_left_to_the_capture_and_no_jump(server: Server, tmp_path: Path) -> None:
    server.answers = [content(archive("2024-09-03,NaN,0.90", "2024-09-02,1.14,none"))]
    given = settings(tmp_path, server.url)
    assert fetch_rates(given).jumps == ()
    captured(given)
    letters = open_dead_letters(Lake(given.lake_uri)).to_pylist()
    assert {each["row_key"] for each in letters} == {"2024-09-03 USD", "2024-09-02 GBP"}


def test_a_fetch_that_is_killed_before_its_archive_has_its_name_leaves_what_was_there(
    server: Server, tmp_path: Path
) -> None:
    server.answers = [content(NEWER), content(archive("2024-09-04,1.12,0.84"))]
    given = settings(tmp_path, server.url)
    fetch_rates(given)
    code = (
        "import os, pathlib; pathlib.Path.replace = lambda *_: os._exit(9); "
        "from totesys_assets.settings import Settings; from totesys_assets.source.fetched_rates import fetch_rates; "
        "fetch_rates(Settings.from_env())"
    )
    variables = {"TOTESYS_HOME": str(given.home), "TOTESYS_RATES_URL": server.url}
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, **variables}, check=False).returncode == 9
    assert [name for name in dropped(tmp_path) if not name.startswith(".")] == ["eurofxref-2024-09-03.zip"]
    assert len(dropped(tmp_path)) == 2
    assert captured(given).versions
    assert open_dead_letters(Lake(given.lake_uri)).num_rows == 0
    assert fetch_rates(given).newest == "2024-09-04"
    assert captured(given).total("inserted") == 2


def test_without_an_address_nothing_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="TOTESYS_RATES_URL is not set"):
        fetch_rates(settings(tmp_path, None))


@pytest.mark.parametrize(
    "url", ["http://example.com/rates.zip", "ftp://example.com", "https://me:secret@example.com", "rates", "https://"]
)
def test_rates_are_fetched_only_over_https(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="TOTESYS_RATES_URL is not an address") as raised:
        settings(tmp_path, url)
    assert "secret" not in str(raised.value)


def test_a_dropped_archive_that_cannot_be_read_is_a_dead_letter_and_what_was_captured_of_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(tmp_path, None)
    place = tmp_path / "home" / "files" / "rates"
    place.mkdir(parents=True)
    (place / "september.zip").write_bytes(NEWER)
    captured(given)
    before = held(given)
    (place / "september.zip").write_bytes(b"broken")
    assert captured(given).versions == 0
    assert held(given) == before
    [letter] = open_dead_letters(Lake(given.lake_uri)).to_pylist()
    assert (letter["row_key"], letter["partition"]) == ("rates/september.zip", "2024-08-19")
    assert "cannot be read as euro reference rates" in letter["reason"]
    monkeypatch.setenv("TOTESYS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LAKE_URI", given.lake_uri)
    shown = CliRunner().invoke(main, ["dead-letters"]).output
    assert 'exchange_rate rates/september.zip: file "september.zip" cannot be read' in shown
    shown = CliRunner().invoke(main, ["rates"]).output
    assert '! "rates/september.zip" cannot be read as euro reference rates' in shown
    (place / "september.zip").unlink()
    assert captured(given).total("deleted") == 4
    assert open_dead_letters(Lake(given.lake_uri)).num_rows == 0


@pytest.mark.parametrize("wrong", ["0", "0.0000", "+0", "-1.11", "-0"])
def test_a_rate_that_is_not_above_zero_is_a_dead_letter_and_what_was_captured_stays(tmp_path: Path, wrong: str) -> None:
    given = settings(tmp_path, None)
    place = tmp_path / "home" / "files" / "rates"
    place.mkdir(parents=True)
    (place / "september.zip").write_bytes(NEWER)
    captured(given)
    before = held(given)
    (place / "newest.zip").write_bytes(archive(f"2024-09-04,{wrong},0.85", f"2024-09-03,{wrong},0.84"))
    assert captured(given).versions == 1
    assert held(given) == {**before, "2024-09-04 GBP": "0.85"}
    letters = [(each["row_key"], each["reason"]) for each in open_dead_letters(Lake(given.lake_uri)).to_pylist()]
    reason = "is not above zero"
    assert sorted(letters) == [("2024-09-03 USD", reason), ("2024-09-04 USD", reason)]
    (place / "newest.zip").write_bytes(archive("2024-09-04,1.12,0.85", "2024-09-03,1.11,0.84"))
    assert captured(given).versions == 1
    assert open_dead_letters(Lake(given.lake_uri)).num_rows == 0


def test_the_list_of_archives_says_when_the_newest_rate_is_older_than_any_pause_of_the_bank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOTESYS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TOTESYS_RATES_ARCHIVE", str(RATES))
    place = tmp_path / "home" / "files" / "rates"
    place.mkdir(parents=True)

    def told() -> str:
        result = CliRunner().invoke(main, ["rates"])
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    (place / "a.zip").write_bytes(NEWER)
    days = (datetime.now(UTC).date() - date(2024, 9, 3)).days
    assert f"The newest rates are of 2024-09-03, {days:,} days ago" in told()
    assert told().endswith(f"drop an archive of the European Central Bank in {place}.")
    for days, is_old in ((7, True), (6, False)):
        day = datetime.now(UTC).date() - timedelta(days)
        (place / "b.zip").write_bytes(packed(f"Date,USD,\n{day},1.11,\n".encode()))
        assert (f"The newest rates are of {day}, 7 days ago" in told()) == is_old
        assert ("The newest rates are of" in told()) == is_old


def changed(content: bytes, local: int, central: int, value: bytes) -> bytes:
    """An archive with other bytes in what it says of its file, at its beginning and at its end."""
    made = bytearray(content)
    made[local : local + len(value)] = value
    place = made.find(b"PK\x01\x02") + central
    made[place : place + len(value)] = value
    return bytes(made)


def packed(text: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("eurofxref-hist.csv", text)
    return made.getvalue()


WHOLE = packed(b"Date,USD,\n2024-09-03,1.11,\n")


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (WHOLE.replace(WHOLE[48:52], b"\xff\xff\xff\xff", 1), "while decompressing"),
        (changed(WHOLE, 6, 8, b"\x01"), "is encrypted"),
        (changed(WHOLE, 8, 10, b"\x61"), "method is not supported"),
        (packed(b"Date,USD,USD,\n2024-09-03,1.11,1.12,\n"), 'has "USD" twice'),
        (packed(b"Date,USD,\n2099-01-01,1.11,\n2024-09-03,1.12,\n"), "has rates up to 2099-01-01, which cannot be"),
        (packed(b"Date,\n2024-09-03,\n"), "names no currency"),
        (packed(b"Date,USD,\n"), "has no day"),
        (packed(b"Date, USD, \n19 August 2024, 1.11, \n"), "a day '19 August 2024', which is not written as"),
        (packed(b"Date,USD,\n09/03/2024,1.11,\n"), "a day '09/03/2024', which is not written as"),
        (packed(b"Date,USD,\n2024-09-03,1.11,\n,1.12,\n"), "a day '', which is not written as"),
        (packed(b"Date,USD,\n2024-09-03,1.11,\n2024-09-03,1.12,\n"), "the day 2024-09-03 twice"),
    ],
)
def test_an_archive_that_is_broken_in_any_way_stops_no_other(tmp_path: Path, broken: bytes, why: str) -> None:
    given = settings(tmp_path, None)
    place = tmp_path / "home" / "files" / "rates"
    place.mkdir(parents=True)
    (place / "august.zip").write_bytes(broken)
    (place / "september.zip").write_bytes(NEWER)
    captured(given)
    assert held(given)["2024-09-03 USD"] == "1.11"
    [letter] = open_dead_letters(Lake(given.lake_uri)).to_pylist()
    assert letter["row_key"] == "rates/august.zip"
    assert why in letter["reason"]


def test_an_archive_that_lies_about_its_size_is_not_unpacked_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecb, "_MOST_BYTES", 1_000_000)
    lying = changed(packed(b"Date,USD,\n" + bytes(30_000_000)), 22, 24, (100).to_bytes(4, "little"))
    tracemalloc.start()
    try:
        with pytest.raises(PlatformError, match="cannot be read as euro reference rates"):
            ecb.rates("lying.zip", lying)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_two_fetches_at_once_leave_one_whole_archive(server: Server, tmp_path: Path) -> None:
    server.answers = [content(NEWER)]
    given = settings(tmp_path, server.url)
    threads = [threading.Thread(target=fetch_rates, args=(given,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dropped(tmp_path) == ["eurofxref-2024-09-03.zip"]
    assert (tmp_path / "home" / "files" / "rates" / "eurofxref-2024-09-03.zip").read_bytes() == NEWER
