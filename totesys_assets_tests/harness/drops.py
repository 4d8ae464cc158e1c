"""What people drop beside ToteSys: sales targets and archives of rates, good, broken and odd, and what must arrive.

Belongs here: the entries of the folders, and the model of the captures of them. Does not belong here: when they are
dropped and captured.
"""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections import Counter, defaultdict
from copy import deepcopy
from datetime import timedelta
from pathlib import Path

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.days import DayRange, Days
from totesys_assets.lake.read import register
from totesys_assets.lake.tables import Lake
from totesys_assets.sql_text import quoted
from totesys_assets_tests.harness.writers import OFFSETS

TARGET, RATE = TABLES = "sales_target", "exchange_rate"
_FOLDERS = {TARGET: TARGET, RATE: "rates"}
# A name may hold whatever the file system lets it.
_NAMES = {TARGET: ("a.csv", "b.csv", "c\nd.csv"), RATE: ("a.zip", "b.zip", "c\nd.zip")}
_NO_UTF_8 = {TARGET: os.fsdecode(b"M\xe4rz.csv"), RATE: os.fsdecode(b"M\xe4rz.zip")}
# What becomes of an entry. Each name is mostly that of a good file.
CHANGES = (
    *("good", "good", "good", "good", "mangled", "cut", "empty", "put back", "put back"),
    *("removed", "a directory", "a link to nothing", "a file that fails", "not in UTF-8"),
)
# Values, few, so that rows return to what they were; and some that are none.
_VALUES = {TARGET: ("100.00", "250.50", "7.00"), RATE: ("1.10", "1.25", "0.86")}
_WRONG = {TARGET: ("plenty",), RATE: ("1.1O", "0")}
_CURRENCIES = ("USD", "GBP")
_DIGITS = {TARGET: 2, RATE: 8}
# Its size is 0, and reading it fails, for whomever.
_FAILS = "/proc/self/mem"

# By key, as dead letters have it, the value of each row.
Rows = dict[str, str]
Versions = dict[str, defaultdict[str, list[tuple[str, str]]]]


def _versions() -> Versions:
    return {name: defaultdict(list) for name in TABLES}


class Drops:
    """The entries as they are, and the versions that captures of them must have left in lake and warehouse."""

    def __init__(self, folder: Path, days: DayRange) -> None:
        self.folder, self._days = folder, days
        # By table and name: the rows of a file, or None if it cannot be read. What is no file is not in it.
        self._entries: dict[str, dict[str, Rows | None]] = {name: {} for name in TABLES}
        # By table and name: what was last written there that can be read.
        self._before: dict[str, dict[str, list[Rows]]] = {name: defaultdict(list) for name in TABLES}
        self._copies: dict[str, dict[str, Rows]] = {name: {} for name in TABLES}
        self._versions = _versions()
        self._loaded = _versions()
        self._backup: tuple[dict[str, dict[str, Rows]], Versions] | None = None

    def change(self, table: str, what: str, name_number: int, number: int) -> None:
        """One of CHANGES to the entry that the numbers pick."""
        name = _NO_UTF_8[table] if what == "not in UTF-8" else _NAMES[table][name_number % len(_NAMES[table])]
        path, entries = self.folder / _FOLDERS[table] / name, self._entries[table]
        path.parent.mkdir(parents=True, exist_ok=True)
        before = self._before[table][name]
        if what == "put back" and len(before) < 2:
            return
        self._remove(path)
        entries.pop(name, None)
        if what in ("good", "mangled", "put back", "not in UTF-8"):
            rows = before[-2] if what == "put back" else self._rows(table, number, mangled=what == "mangled")
            path.write_bytes(_content(table, rows))
            entries[name] = rows if what != "not in UTF-8" else None
            before.append(rows)
        elif what in ("cut", "empty"):
            whole = _content(table, self._rows(table, number))
            path.write_bytes(whole[:-5] + b'\n"' if what == "cut" else b"")
            entries[name] = None
        elif what == "a directory":
            path.mkdir()
        elif what != "removed":
            path.symlink_to(_FAILS if what == "a file that fails" else self.folder / "nothing")
            entries[name] = None

    @staticmethod
    def _remove(path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def _rows(self, table: str, number: int, *, mangled: bool = False) -> Rows:
        """A few rows, of days and values that the number picks."""
        days = [self._days.first + timedelta(days=OFFSETS[(number + each) % len(OFFSETS)]) for each in (0, number // 3)]
        keys = [
            f"{day} {code}" if table == RATE else f"{day:%Y-%m}-01, Department {code}, GBP"
            for day in days
            for code in _CURRENCIES
        ]
        rows = {key: _VALUES[table][(number + place) % 3] for place, key in enumerate(dict.fromkeys(keys))}
        if mangled:
            rows[keys[number % len(keys)]] = _WRONG[table][number % len(_WRONG[table])]
        return rows

    # The model

    def _shown(self, table: str) -> Rows:
        """The rows of all files: of one that cannot be read, those of its last good copy."""
        read = [
            self._copies[table].get(name, {}) if rows is None else rows
            for name, rows in sorted(self._entries[table].items())
        ]
        if table == RATE:  # the archive with the newest day is believed
            read.sort(key=lambda rows: max((key[:10] for key in rows), default=""))
        return {key: value for rows in read for key, value in rows.items()}

    def pending(self, table: str, days: Days | None) -> list[tuple[str, tuple[str, str]]]:
        """What a capture would add: key, operation and value."""
        shown, held = self._shown(table), self._versions[table]
        added = []
        for key in sorted(shown.keys() | held.keys()):
            if table == RATE and days is not None and key[:10] not in days.keys:
                continue
            operation, last = held[key][-1] if held.get(key) else ("delete", "")
            value = shown.get(key)
            if value is None and operation != "delete":
                added.append((key, ("delete", last)))
            elif value is not None and value not in _WRONG[table]:
                if operation == "delete":
                    added.append((key, ("insert", value)))
                elif value != last:
                    added.append((key, ("update", value)))
        return added

    def partition(self, table: str, key: str) -> str:
        """The partition that a row is captured with."""
        return key[:10] if table == RATE else "*"

    def capture(self, table: str, days: Days | None, *, loaded: bool) -> Counter[str]:
        """Note what a capture must add, and what it copies; returns the versions by operation.

        ``loaded``: it gets into the warehouse version by version.
        """
        added = self.pending(table, days)
        for key, version in added:
            self._versions[table][key].append(version)
            if loaded:
                self._loaded[table][key].append(version)
        entries = self._entries[table]
        self._copies[table] = {name: rows for name, rows in self._copies[table].items() if name in entries} | {
            name: rows for name, rows in entries.items() if rows is not None
        }
        return Counter(operation for _, (operation, _) in added)

    def letters(self) -> set[tuple[str, str]]:
        """Table and key of each row that cannot be typed, and of each file that cannot be read."""
        found = {
            (table, key) for table in TABLES for key, value in self._shown(table).items() if value in _WRONG[table]
        }
        for table, entries in self._entries.items():
            place = f"{_FOLDERS[table]}/" if table == RATE else ""
            for name in (name for name, rows in entries.items() if rows is None):
                found.add((table, place + name.encode(errors="surrogateescape").decode(errors="backslashreplace")))
        return found

    def keep_copy(self) -> None:
        """The lake was copied."""
        self._backup = deepcopy((self._copies, self._versions))

    def change_lake(self, *, restored: bool) -> None:
        """The lake is the copy, or one in which there is nothing."""
        known = deepcopy(self._backup) if restored else None
        self._copies, self._versions = known or ({name: {} for name in TABLES}, _versions())

    def lose(self, table: str) -> None:
        """The versions of a table are gone."""
        self._versions[table] = defaultdict(list)

    def adopt(self) -> None:
        """The warehouse goes on with another lake: what both agree on gets no second version."""
        for table in TABLES:
            mine, theirs = self._loaded[table], self._versions[table]
            for key in mine.keys() | theirs.keys():
                operation, held = mine[key][-1] if mine.get(key) else ("delete", "")
                there, value = theirs[key][-1] if theirs.get(key) else ("delete", "")
                if there == "delete" and operation != "delete":
                    mine[key].append(("delete", held))
                elif there != "delete" and operation == "delete":
                    mine[key].append(("insert", value))
                elif there != "delete" and value != held:
                    mine[key].append(("update", value))

    # Comparing

    def require_arrived(self, lake: Lake) -> None:
        """Each version that must have arrived is in the lake once, in its order, and no other."""
        for name in TABLES:
            table = catalogue().source[name]
            expected = _numbers(name, self._versions[name])
            if not expected and lake.find("ingestion", name) is None:
                continue
            connection = engine.connect()
            try:
                held = register(connection, "held", lake.existing(table))
                key = "exchange_rate_id" if name == RATE else "concat_ws(', ', {}, {}, {})".format(*table.primary_key)
                query = f"SELECT {key}, {quoted(table.columns[-1].name)}::VARCHAR, _operation FROM {held}"
                rows = connection.execute(f"{query} ORDER BY _recorded_at").fetchall()
            finally:
                connection.close()
            found: dict[str, list[tuple[str, str]]] = {}
            for row_key, value, operation in rows:
                found.setdefault(row_key, []).append((operation, value))
            assert found == expected, f"versions of {name}:\n{found}\nexpected:\n{expected}"

    def require_rates(self, records: list[tuple[str | None, ...]]) -> None:
        """The warehouse's fact has each version once; ``records``: operation, key and value, in their order."""
        found: dict[str, list[tuple[str, str]]] = {}
        for operation, key, value in records:
            found.setdefault(str(key), []).append((str(operation), str(value)))
        expected = _numbers(RATE, self._loaded[RATE])
        assert found == expected, f"versions of rates in the warehouse:\n{found}\nexpected:\n{expected}"

    def require_targets(self, rows: list[tuple[str | None, ...]]) -> None:
        """The warehouse's dimension has the present rows: key and value."""
        present = {key: versions[-1:] for key, versions in self._versions[TARGET].items() if versions}
        current = {key: last for key, last in present.items() if last[0][0] != "delete"}
        expected = {key: value for key, [(_, value)] in _numbers(TARGET, current).items()}
        found = {str(key): value for key, value in rows}
        assert found == expected, f"sales targets in the warehouse:\n{found}\nexpected:\n{expected}"


def _numbers(table: str, versions: dict[str, list[tuple[str, str]]]) -> dict[str, list[tuple[str, str]]]:
    """The versions, with values as the lake and the warehouse write them."""
    digits = _DIGITS[table]
    return {
        key: [(operation, f"{float(value):.{digits}f}") for operation, value in each]
        for key, each in versions.items()
        if each
    }


def _content(table: str, rows: Rows) -> bytes:
    if table == TARGET:
        lines = ["target_month,department_name,currency_code,amount"]
        lines += [f"{key.replace(', ', ',')},{value}" for key, value in rows.items()]
        return "\n".join([*lines, ""]).encode()
    days = sorted({key[:10] for key in rows})
    lines = [f"Date,{','.join(_CURRENCIES)},"]
    lines += [f"{day},{','.join(rows.get(f'{day} {code}', 'N/A') for code in _CURRENCIES)}," for day in days]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("eurofxref-hist.csv", "\n".join([*lines, ""]))
    return packed.getvalue()
