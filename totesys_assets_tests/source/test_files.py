"""Files as a source: what is read of them, which of several rows is meant, and what cannot be read."""

from __future__ import annotations

import json
import os
import time
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner

from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.capture.difference import Captured, capture
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.commands import main
from totesys_assets.days import DayRange
from totesys_assets.errors import ConnectionFailed, TableBusy
from totesys_assets.lake.tables import Lake
from totesys_assets.reader import read_arrow
from totesys_assets.source import file_store
from totesys_assets.source.dropped import copies_of
from totesys_assets.source.file_store import FileStore
from totesys_assets.source.files import Files

pytestmark = pytest.mark.pure

DAYS = DayRange(date(2024, 8, 19), date(2024, 8, 25))
TABLE = catalogue().source["sales_target"]
HEADER = "target_month,department_name,currency_code,amount\n"


class Place:
    """A folder of files, and a lake that captures them."""

    def __init__(self, folder: Path) -> None:
        self.files = folder / "files"
        self.lake = Lake(f"{folder}/lake")
        self.source = Files(FileStore(str(self.files), "FILES_URI"), copies_of(self.lake.uri), {"sales_target": TABLE})

    def drop(self, name: str, content: str | bytes) -> Path:
        path = self.files / "sales_target" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def rows(self, name: str, *rows: str) -> Path:
        """Drop a CSV of rows, each as ``August Sales GBP 100``."""
        return self.drop(name, HEADER + "".join(f"{','.join(row.split())}\n" for row in rows))

    def captured(self) -> Captured:
        with self.source.snapshot() as snapshot:
            return capture(snapshot, self.lake, TABLE, all_days=DAYS, days=DAYS, run_id="test", changes_only=True)

    def held(self) -> list[str]:
        """The rows as they are now, from the lake: month, department and amount."""
        self.captured()
        rows = read_arrow("sales_target", lake=self.lake.uri).to_pylist()
        return sorted(f"{row['target_month']:%m} {row['department_name']} {row['amount']}" for row in rows)

    def letters(self) -> list[tuple[str, str, str]]:
        found = open_dead_letters(self.lake).to_pylist()
        return sorted((row["row_key"], row["column_name"], row["reason"]) for row in found)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_folder_that_is_not_there_has_no_rows(place: Place) -> None:
    assert place.captured().versions == 0
    assert place.held() == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", HEADER + "2024-08-01,Sales,GBP,100.50\n2024-08-01,Retail,GBP,7\n"),
        (
            "a.CSV",
            "\ufeff" + HEADER.replace("\n", "\r\n") + '2024-08-01,"Sales",GBP,100.50\r\n\r\n2024-08-01,Retail,GBP,7',
        ),
        (
            "a.json",
            '[{"target_month": "2024-08-01", "department_name": "Sales", "currency_code": "GBP", "amount": 100.50},\n'
            '{"amount": "7", "target_month": "2024-08-01", "department_name": "Retail", "currency_code": "GBP"}]',
        ),
        (
            "a.jsonl",
            '{"target_month": "2024-08-01", "department_name": "Sales", "currency_code": "GBP", "amount": 100.50}\n\n'
            '{"amount": 7, "target_month": "2024-08-01", "department_name": "Retail", "currency_code": "GBP"}\n',
        ),
    ],
)
def test_csv_and_json_are_read_exactly(place: Place, name: str, content: str) -> None:
    place.drop(name, content)
    assert place.held() == ["08 Retail 7.00", "08 Sales 100.50"]


def test_a_changed_row_is_an_update_and_a_file_that_is_gone_takes_its_rows_away(place: Place) -> None:
    place.rows("a.csv", "2024-08-01 Sales GBP 100", "2024-08-01 Retail GBP 7")
    late = place.rows("b.csv", "2024-07-01 Sales GBP 90")
    assert place.captured().total("inserted") == 3
    place.rows("a.csv", "2024-08-01 Sales GBP 110", "2024-08-01 Retail GBP 7")
    assert place.captured().total("updated") == 1
    late.unlink()
    captured = place.captured()
    assert (captured.total("deleted"), captured.versions) == (1, 1)
    assert place.captured().versions == 0


def test_the_same_rows_under_another_name_add_nothing(place: Place) -> None:
    path = place.rows("a.csv", "2024-08-01 Sales GBP 100")
    place.captured()
    place.rows("b.csv", "2024-08-01 Sales GBP 100")
    assert place.captured().versions == 0
    path.unlink()
    assert place.captured().versions == 0


def test_of_two_files_that_differ_the_one_whose_name_sorts_later_is_believed(place: Place) -> None:
    place.rows("2024-08.csv", "2024-08-01 Sales GBP 100", "2024-08-01 Retail GBP 7")
    later = place.rows("2024-09.csv", "2024-08-01 Sales GBP 120")
    assert place.held() == ["08 Retail 7.00", "08 Sales 120.00"]
    later.unlink()
    assert place.held() == ["08 Retail 7.00", "08 Sales 100.00"]
    assert place.letters() == []


def test_a_file_that_differs_from_itself_is_a_dead_letter_and_what_was_there_stays(place: Place) -> None:
    place.rows("a.csv", "2024-08-01 Sales GBP 100", "2024-08-01 Retail GBP 7")
    place.captured()
    place.rows("a.csv", "2024-08-01 Sales GBP 100", "2024-08-01 Sales GBP 120", "2024-08-01 Retail GBP 8")
    assert place.held() == ["08 Retail 8.00", "08 Sales 100.00"]
    told = ("2024-08-01, Sales, GBP", "file", "has several rows with this key, and other values")
    assert place.letters() == [told]
    place.rows("a.csv", "2024-08-01 Sales GBP 100", "2024-08-01 Retail GBP 8")  # the row's text is as it was
    place.captured()
    assert place.letters() == []


def test_rows_of_a_csv_that_are_empty_throughout_are_none_and_the_others_keep_their_numbers(place: Place) -> None:
    empty = ",,,\n"
    place.drop("a.csv", f"{empty}{HEADER}2024-08-01,Sales,GBP,100\n{empty}\nAugust,Retail,GBP,7\n{empty},,,,,\n")
    assert place.held() == ["08 Sales 100.00"]
    assert [key for key, *_ in place.letters()] == ["a.csv, row 6"]
    place.drop("b.csv", f"{HEADER}\n2024-08-01,Sales,GBP\n")
    place.captured()
    [reason] = [reason for key, _, reason in place.letters() if key == "b.csv"]
    assert "row 3 has 3 values for 4 columns" in reason


def test_a_row_that_breaks_the_contract_is_a_dead_letter_and_the_others_go_on(place: Place) -> None:
    place.rows("a.csv", "2024-08-01 Sales GBP plenty", "2024-08-01 Retail Pounds 7", "2024-08-01 Online GBP 9")
    place.rows("b.csv", "August Sales GBP 100", "2024-08-01 Shop GBP 1")
    assert place.held() == ["08 Online 9.00", "08 Shop 1.00"]
    assert place.letters() == [
        ("2024-08-01, Retail, Pounds", "currency_code", "is longer than 3 characters"),
        ("2024-08-01, Sales, GBP", "amount", "is no numeric(18,2)"),
        ("b.csv, row 2", "target_month", "is no date"),
    ]
    [raw] = [row["raw"] for row in open_dead_letters(place.lake).to_pylist() if row["column_name"] == "target_month"]
    assert json.loads(raw)["target_month"] == "August"
    place.rows("b.csv", "2024-08-01 Sales GBP 100", "2024-08-01 Shop GBP 1")
    place.captured()
    assert [letter[0] for letter in place.letters()] == ["2024-08-01, Retail, Pounds"]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("b.csv", b"\xff\xfe\n", "it is no CSV in UTF-8"),
        ("b.csv", b"", "it is empty"),
        ("b.csv", HEADER.encode() + b"2024-08-01,Sales\n", "row 2 has 2 values for 4 columns"),
        ("b.csv", HEADER.encode() + b'2024-08-01,"Sales', "it is no CSV in UTF-8"),
        (
            "b.csv",
            b"month,department_name\n",
            'it has no column "target_month"; its first line is to name target_',
        ),
        (
            "b.csv",
            HEADER.replace(",", ";").encode() + b"2024-08-01;Sales;GBP;1,50\n",
            "its columns are separated by semicolons; save it with commas",
        ),
        ("b.csv", HEADER.replace(",", "\t").encode(), "its columns are separated by tabs; save it with commas"),
        ("b.csv", b"amount," + HEADER.encode(), 'it has a column "amount" twice'),
        ("b.json", b'[{"amount": 1}', "it is no JSON in UTF-8"),
        ("b.json", b"[1]", "row 1 is no object"),
        ("b.json", b"[" * 100_000, "it is no JSON in UTF-8"),
        ("b.jsonl", b'{"amount": 1, "amount": 2}', "an object has one name twice"),
        ("b.jsonl", b'{"department_name": "\\ud800"}', "it is no JSON in UTF-8"),
        ("b.xlsx", b"PK", "its name ends with none of"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_dead_letter_and_the_other_files_go_on(
    place: Place, name: str, content: bytes, why: str
) -> None:
    place.drop(name, content)
    place.rows("a.csv", "2024-08-01 Sales GBP 100")
    assert place.held() == ["08 Sales 100.00"]
    [(key, column, reason)] = place.letters()
    assert (key, column) == (name, "file")
    assert why in reason


def test_a_value_of_json_that_is_no_value_is_a_dead_letter(place: Place) -> None:
    place.drop(
        "a.jsonl",
        '{"target_month": "2024-08-01", "department_name": "Sales", "currency_code": "GBP", "amount": [1]}\n'
        '{"target_month": "2024-08-01", "department_name": "Retail", "currency_code": "GBP"}\n',
    )
    place.captured()
    assert place.letters() == [
        ("2024-08-01, Retail, GBP", "amount", "is missing"),
        ("2024-08-01, Sales, GBP", "amount", "is a list or an object"),
    ]


def test_what_was_captured_of_a_file_stays_while_it_cannot_be_read_and_goes_with_it(place: Place) -> None:
    place.rows("a.csv", "2024-08-01 Sales GBP 100", "2024-08-01 Retail GBP 7")
    place.rows("b.csv", "2024-08-01 Sales GBP 110")
    place.captured()
    later = place.rows("b.csv", "2024-08-01 Sales GBP 120", "2024-09-01 Sales GBP 130")
    assert place.held() == ["08 Retail 7.00", "08 Sales 120.00", "09 Sales 130.00"]
    later.write_bytes(b"\xff\xfe\n")
    place.rows("a.csv", "2024-08-01 Sales GBP 101", "2024-08-01 Retail GBP 8")
    assert place.held() == ["08 Retail 8.00", "08 Sales 120.00", "09 Sales 130.00"]
    assert [letter[0] for letter in place.letters()] == ["b.csv"]
    later.unlink()
    assert place.held() == ["08 Retail 8.00", "08 Sales 101.00"]
    assert place.letters() == []
    later.write_bytes(b"\xff\xfe\n")  # it comes back, and still cannot be read
    assert place.held() == ["08 Retail 8.00", "08 Sales 101.00"]


def test_a_capture_that_is_killed_before_the_copies_is_done_again_and_copies(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place.rows("a.csv", "2024-08-01 Sales GBP 100")
    with monkeypatch.context() as patch:
        patch.setattr("totesys_assets.source.files.keep_copies", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            place.captured()
    assert place.captured().versions == 0
    path.write_bytes(b"\xff")
    assert place.held() == ["08 Sales 100.00"]


def test_a_file_that_is_too_large_is_not_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_store, "MOST_BYTES", 60)
    place.rows("a.csv", "2024-08-01 Sales GBP 100")
    place.captured()
    [(key, column, reason)] = place.letters()
    assert (key, column) == ("a.csv", "file")
    assert reason.startswith("cannot be read: it has 75 bytes")


def test_hidden_files_and_folders_and_what_is_no_file_are_left_alone(place: Place) -> None:
    place.rows("a.csv", "2024-08-01 Sales GBP 100")
    place.rows(".b.csv", "2024-09-01 Sales GBP 100")
    (place.files / "sales_target" / "older").mkdir()
    os.mkfifo(place.files / "sales_target" / "pipe.csv")
    assert place.held() == ["08 Sales 100.00"]
    assert place.letters() == []


def test_an_entry_that_leads_nowhere_or_has_no_name_in_utf_8_is_one_dead_letter_and_the_other_files_go_on(
    place: Place,
) -> None:
    place.rows("a.csv", "2024-08-01 Sales GBP 100")
    (place.files / "sales_target" / "loop.csv").symlink_to("loop.csv")
    (place.files / "sales_target" / "lost.csv").symlink_to(place.files / "elsewhere.csv")
    place.rows(os.fsdecode(b"M\xe4rz.csv"), "2024-09-01 Sales GBP 100")
    assert place.held() == ["08 Sales 100.00"]
    assert place.letters() == [
        ("M\\xe4rz.csv", "file", "cannot be read: its name is not in UTF-8"),
        ("loop.csv", "file", "cannot be read: the system says: Too many levels of symbolic links"),
        ("lost.csv", "file", "cannot be read: it is a link that leads nowhere"),
    ]


def test_what_was_captured_through_a_link_stays_while_it_leads_nowhere(place: Place) -> None:
    there = place.files / "of_a_share.csv"
    place.rows("a.csv", "2024-08-01 Sales GBP 100").rename(there)
    (place.files / "sales_target" / "b.csv").symlink_to(there)
    assert place.held() == ["08 Sales 100.00"]
    there.rename(there.with_name("away"))
    assert place.held() == ["08 Sales 100.00"]
    assert [letter[0] for letter in place.letters()] == ["b.csv"]
    with place.source.snapshot() as snapshot:
        (place.files / "sales_target" / "b.csv").unlink()
        with pytest.raises(TableBusy):
            snapshot.require(TABLE)


def test_a_file_that_is_replaced_while_it_is_read_is_left_for_the_next_refresh(place: Place) -> None:
    place.rows("a.csv", "2024-08-01 Sales GBP 100")
    with place.source.snapshot() as snapshot:
        place.rows("new", "2024-08-01 Sales GBP 200").replace(place.files / "sales_target" / "a.csv")
        with pytest.raises(TableBusy, match=r'"sales_target/a\.csv" is being written'):
            snapshot.require(TABLE)
    with place.source.snapshot() as snapshot:
        (place.files / "sales_target" / "a.csv").unlink()
        with pytest.raises(TableBusy):
            snapshot.require(TABLE)


def instant(place: Place) -> str:
    with place.source.snapshot() as snapshot:
        return snapshot.instant


def test_a_fresh_file_is_never_taken_to_be_unchanged_and_an_old_one_is_not_read(place: Place) -> None:
    path = place.rows("a.csv", "2024-08-01 Sales GBP 100")
    assert instant(place) != instant(place)
    long_ago = path.stat().st_mtime - 86_400
    os.utime(path, (long_ago, long_ago))
    time.sleep(2.1)  # it also has the time of that
    assert instant(place) == instant(place)
    kept = instant(place)
    path.write_text(path.read_text().replace("100", "200"))
    os.utime(path, (long_ago, long_ago))
    time.sleep(2.1)
    assert instant(place) != kept


def test_a_place_that_cannot_be_read_is_said_in_a_sentence(place: Place) -> None:
    place.files.write_text("")
    with pytest.raises(ConnectionFailed, match=r"FILES_URI leads to .*, which cannot be read"), place.source.snapshot():
        pass


def test_templates_are_a_file_in_each_folder_that_has_none_and_the_folder_of_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOTESYS_HOME", str(tmp_path))
    own = tmp_path / "files" / "sales_target" / "own.csv"
    own.parent.mkdir(parents=True)
    own.write_text(HEADER)
    for templates in ([], ["--templates"], ["--templates"]):
        result = CliRunner().invoke(main, ["files", *templates])
        assert result.exit_code == 0, result.output
        assert (
            f"{tmp_path}/files/rates/\nArchives of euro reference rates, as the European Central Bank" in result.output
        )
        assert (tmp_path / "files" / "rates").is_dir() == bool(templates)
    made = [str(each.relative_to(tmp_path / "files")) for each in (tmp_path / "files").rglob("*.*")]
    assert sorted(made) == ["marketing_spend/marketing_spend.csv", "sales_target/own.csv"]
