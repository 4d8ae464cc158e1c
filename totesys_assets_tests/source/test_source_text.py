"""Text of a source in any encoding: the same characters in the lake, and a dead letter where there are none."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from totesys_assets.audit.audit import audit, checks
from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.catalogue.catalogue import catalogue, ddl
from totesys_assets.source.totesys.rows import raw
from totesys_assets.source.totesys.text import UNMAPPED, invalid
from totesys_assets_tests.conftest import TRADE, Platform, PostgresServer, make_platform

# The tables that have what addresses say.
WITH_TEXT = ("address", "dim_location", "dim_counterparty")
_EUC = [bytes([first, second]) for first in range(0xA1, 0xFF) for second in range(0xA1, 0xFF)]


def codes(encoding: str) -> list[bytes]:
    """What a character beyond ASCII may be made of."""
    if not encoding.startswith("EUC"):
        return [bytes([code]) for code in range(0x80, 0x100)]
    three = [b"\x8f" + code for code in _EUC] if encoding == "EUC_JP" else []
    return [*_EUC, *three]


@pytest.mark.parametrize("encoding", ["WIN1252", "ISO_8859_7", "EUC_KR", "SQL_ASCII", "LATIN1"])
def test_the_server_finds_what_it_cannot_send_and_nothing_else(postgres_server: PostgresServer, encoding: str) -> None:
    with psycopg.connect(postgres_server.database(encoding=encoding), client_encoding="utf8") as connection:
        held = codes(encoding)
        connection.execute(
            "CREATE TABLE held AS SELECT number, convert_from(code, %s) AS code FROM unnest(%s::int[], %s::bytea[]) "
            "AS held (number, code)",
            [encoding, list(range(len(held))), held],
        )
        condition = invalid("code", encoding) or "false"
        found = {row[0] for row in connection.execute(f"SELECT number FROM held WHERE {condition}".encode())}
        sent = set()
        for first in range(0, len(held), 94):
            sent |= _sent(connection, first, min(first + 94, len(held)))
    assert found == set(range(len(held))) - sent


def _sent(connection: psycopg.Connection[tuple[object, ...]], first: int, end: int) -> set[int]:
    try:
        with connection.transaction():
            connection.execute("SELECT code FROM held WHERE number >= %s AND number < %s", [first, end])
    except psycopg.errors.DataError:
        middle = (first + end) // 2
        return _sent(connection, first, middle) | _sent(connection, middle, end) if end - first > 1 else set()
    return set(range(first, end))


@pytest.mark.parametrize("encoding", UNMAPPED)
def test_the_codes_without_a_character_are_those_of_the_server(postgres_server: PostgresServer, encoding: str) -> None:
    listed: set[int] = set()
    for each in UNMAPPED[encoding].split():
        first, _, last = each.partition("-")
        listed.update(range(int(first, 16), int(last or first, 16) + 1))
    with psycopg.connect(postgres_server.database(), autocommit=True) as connection:
        for code in codes(encoding)[:: 97 if encoding.startswith("EUC") else 1]:
            try:
                connection.execute("SELECT convert_from(%s, %s)", [code, encoding])
                is_mapped = True
            except psycopg.errors.UntranslatableCharacter:
                is_mapped = False
            assert is_mapped == (int.from_bytes(code, "big") not in listed), code.hex()


@pytest.mark.parametrize(
    ("encoding", "good", "bad", "shown"),
    [
        pytest.param("LATIN1", "Málaga", None, None, marks=pytest.mark.thorough),
        pytest.param("WIN1252", "Œuvre €", b"M\x81laga", "M\\201laga", marks=pytest.mark.thorough),
        pytest.param("EUC_JP", "東京", b"\xa2\xaf", "\\242\\257", marks=pytest.mark.thorough),
        ("SQL_ASCII", "Łódź", b"M\xe1laga", "M\\341laga"),
    ],
)
def test_text_arrives_as_it_is_and_what_has_no_form_is_a_dead_letter(
    postgres_server: PostgresServer, tmp_path: Path, encoding: str, good: str, bad: bytes | None, shown: str | None
) -> None:
    source = postgres_server.database(encoding=encoding)
    with psycopg.connect(source, client_encoding="utf8") as connection:
        connection.execute(ddl("totesys.sql"))
        connection.execute(TRADE)
    with make_platform(source, postgres_server.database(), tmp_path) as platform:
        write(platform, 1, good.encode() if encoding == "SQL_ASCII" else good)
        platform.refresh()  # the first, where every row is new
        require_right(platform, good, 0)
        if bad is None:
            return
        write(platform, 2, bad)
        assert [each for each in audited(platform) if "waits for a refresh" not in each] == []  # no error of the server
        platform.refresh()
        [letter] = open_dead_letters(platform.lake).to_pylist()
        assert (letter["row_key"], letter["column_name"]) == ("2", "city")
        assert letter["reason"] == f"holds bytes that are no text, in a database of encoding {encoding}"
        assert f'"city":"{shown}"' in letter["raw"].replace("\\\\", "\\")
        require_right(platform, good, 1)
        write(platform, 2, "mended")
        platform.refresh()
        require_right(platform, good, 0)


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_JP", "SQL_ASCII"])
def test_a_dead_letter_can_be_written_in_a_database_of_any_encoding(
    postgres_server: PostgresServer, encoding: str
) -> None:
    address = catalogue().source["address"]
    with psycopg.connect(postgres_server.database(encoding=encoding), client_encoding="utf8") as connection:
        connection.execute(ddl("totesys.sql"))
        connection.execute(
            "INSERT INTO address SELECT 1, repeat('x', 5000000), NULL, NULL, 'y', 'z', 'c', '1', now(), now()"
        )
        rows = connection.execute(f"SELECT {raw(address, encoding)} FROM address AS t".encode()).fetchall()
    assert f'"{"x" * 200}... (5000000 bytes)"' in rows[0][0]


def write(platform: Platform, address: int, city: str | bytes) -> None:
    """Give an address a city: characters, or bytes as they are in the source."""
    with psycopg.connect(platform.totesys_url, client_encoding="utf8") as connection:
        as_text = "%s" if isinstance(city, str) else "convert_from(%s, getdatabaseencoding()::name)"
        statement = f"UPDATE address SET city = {as_text}, last_updated = now() WHERE address_id = %s"
        connection.execute(statement.encode(), [city, address])


def audited(platform: Platform) -> list[str]:
    """What the audit finds wrong of all that has the text."""
    wanted = [pair for pair in checks(platform.totesys.catalogue) if pair[0].partition("/")[2] in WITH_TEXT]
    assert {asset for asset, _ in wanted} == {"totesys/address", "warehouse/dim_location", "warehouse/dim_counterparty"}
    found = audit(platform.core, wanted)
    return [f"{each.asset} {each.check} failed: {each.detail}" for each in found if not each.passed]


def require_right(platform: Platform, city: str, dead: int) -> None:
    assert platform.query("SELECT city FROM dim_location WHERE location_id = 1") == [(city,)]
    assert open_dead_letters(platform.lake).num_rows == dead
    assert audited(platform) == []
    assert platform.look().requests == []
