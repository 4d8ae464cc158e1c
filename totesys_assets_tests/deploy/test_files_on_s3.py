"""Files in a bucket: what is dropped there is captured, and a bucket that does not answer is said in a sentence."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest

from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.capture.difference import capture
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.days import DayRange
from totesys_assets.errors import ConnectionFailed, TableBusy
from totesys_assets.lake.tables import Lake
from totesys_assets.reader import read_arrow
from totesys_assets.source.dropped import copies_of
from totesys_assets.source.file_store import FileStore
from totesys_assets.source.files import Files
from totesys_assets_tests.deploy.servers import SECRET, SeaweedFS, s3_environment

DAYS = DayRange(date(2024, 8, 19), date(2024, 8, 25))
TABLE = catalogue().source["sales_target"]
HEADER = "target_month,department_name,currency_code,amount\n"


class Place:
    """A bucket of files with a lake in it."""

    def __init__(self, seaweed: SeaweedFS) -> None:
        self.client, self.bucket = seaweed.client, f"files-{os.urandom(4).hex()}"
        self.client.create_bucket(Bucket=self.bucket)
        self.lake = Lake(f"s3://{self.bucket}/lake")
        self.store = FileStore(f"s3://{self.bucket}/dropped", "FILES_URI")
        self.source = Files(self.store, copies_of(self.lake.uri), {TABLE.name: TABLE})

    def drop(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"dropped/{TABLE.name}/{name}", Body=content)

    def held(self) -> list[str]:
        with self.source.snapshot() as snapshot:
            capture(snapshot, self.lake, TABLE, all_days=DAYS, days=DAYS, run_id="test", changes_only=True)
        rows = read_arrow(TABLE.name, lake=self.lake.uri).to_pylist()
        return sorted(f"{row['department_name']} {row['amount']}" for row in rows)


@pytest.fixture
def place(seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name, value in s3_environment(seaweed.url).items():
        monkeypatch.setenv(name, value)
    return Place(seaweed)


def test_files_of_a_bucket_are_captured_and_one_that_cannot_be_read_is_taken_for_its_copy(place: Place) -> None:
    place.drop("", b"")  # as the console makes a folder
    place.drop("older/c.csv", b"\xff")
    place.drop("a.csv", f"{HEADER}2024-08-01,Sales,GBP,100\n".encode())
    place.drop("b.csv", f"{HEADER}2024-08-01,Retail,GBP,7\n".encode())
    assert place.held() == ["Retail 7.00", "Sales 100.00"]
    place.drop("a.csv", f"{HEADER}2024-08-01,Sales,GBP,120\n".encode())
    place.drop("b.csv", b"\xff")
    assert place.held() == ["Retail 7.00", "Sales 120.00"]
    assert [row["row_key"] for row in open_dead_letters(place.lake).to_pylist()] == ["b.csv"]
    place.store.delete(f"{TABLE.name}/b.csv")
    assert place.held() == ["Sales 120.00"]
    place.drop("b.csv", b"\xff")
    assert place.held() == ["Sales 120.00"]


def test_every_page_of_a_listing_is_read(place: Place) -> None:
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda number: place.drop(f"{number:04}.csv", b""), range(1001)))
    assert len(place.store.files(TABLE.name)) == 1001


def test_an_object_that_is_replaced_or_removed_after_the_listing_is_left_for_the_next_refresh(place: Place) -> None:
    place.drop("a.csv", b"1")
    [listed] = place.store.files(TABLE.name)
    assert place.store.read(listed) == b"1"
    place.drop("a.csv", b"2")
    with pytest.raises(TableBusy, match="is being written"):
        place.store.read(listed)
    place.store.delete(listed.path)
    with pytest.raises(TableBusy):
        place.store.read(listed)


def test_what_the_platform_writes_it_finds_again(place: Place) -> None:
    place.store.make_folder("rates")
    assert place.store.files("rates") == []
    assert place.store.find("rates/a.zip") is None
    place.store.write("rates/a.zip", b"1")
    assert place.store.find("rates/a.zip") == b"1"
    assert [each.path for each in place.store.files("rates")] == ["rates/a.zip"]


def test_a_bucket_that_does_not_answer_is_a_problem_in_a_sentence(
    place: Place, monkeypatch: pytest.MonkeyPatch, seaweed: SeaweedFS
) -> None:
    with pytest.raises(ConnectionFailed, match=r"FILES_URI leads to s3://no-such-bucket, which does not answer"):
        FileStore("s3://no-such-bucket", "FILES_URI").files("rates")
    for name, value in s3_environment(seaweed.url, secret=f"wrong-{SECRET}").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConnectionFailed, match="which does not answer") as caught:
        FileStore(place.store.uri, "FILES_URI").files("rates")
    assert SECRET not in str(caught.value)
