"""Sets of values of versions, kept from build to build: only what is new is read of the versions.

Belongs here: bringing the sets up to date, and what is kept of them in the ledger. Does not belong here: what a set is,
which is ``Query.sets``, and the rows made of them.

Versions are only ever added, and each adds to a set whatever the others are. So the set of all versions is the one of
those up to some moment and the one of those recorded since. What is kept says of which versions it is the set, and by
which SELECT: nothing else need be true for it to be right.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb
from deltalake import DeltaTable

from totesys_assets.catalogue.catalogue import Catalogue
from totesys_assets.catalogue.queries import SETS, Query
from totesys_assets.lake.read import holds_moment, recorded_until, rows_recorded_since
from totesys_assets.sql_text import literal, quoted
from totesys_assets.transform.schemas import create_schemas

# A calendar of ten years has 4,000 days, which take 12 kB. Sets of more rows than this are read anew each time.
_MOST_ROWS = 20_000
# They are written again when they have grown, or when more versions than this would be read again: 20 ms of work.
_MOST_READ_AGAIN = 30_000


@dataclass(frozen=True)
class Sets:
    """The ``rows`` of each set, in order and as text, of the versions of each source up to a moment.

    Moments are in microseconds since 1970. ``origin`` stands for the very tables of versions and the SELECTs.
    """

    origin: str
    until: dict[str, int]
    rows: dict[str, list[list[str | None]]]

    @property
    def text(self) -> str:
        """As it is kept."""
        rows = zlib.compress(json.dumps(self.rows).encode())
        return json.dumps({"origin": self.origin, "until": self.until, "rows": base64.b64encode(rows).decode("ascii")})

    @classmethod
    def parse(cls, text: str) -> Sets | None:
        """Of what was kept; None if it cannot be understood."""
        try:
            noted = json.loads(text)
            return cls(noted["origin"], noted["until"], json.loads(zlib.decompress(base64.b64decode(noted["rows"]))))
        except (ValueError, TypeError, KeyError, zlib.error):
            return None


def gather(
    connection: duckdb.DuckDBPyConnection,
    catalogue: Catalogue,
    query: Query,
    sources: Mapping[str, DeltaTable],
    kept: Sets | None,
) -> Sets:
    """Create the tables ``sets.<name>`` of ``query``, of all versions of its ``sources``; returns what they hold.

    Of versions that ``kept`` speaks of, nothing is read. It is not believed if it is of other tables or SELECTs, or if
    the newest version of then is gone: the lake was set back.
    """
    found = {name: recorded_until(table) for name, table in sources.items()}
    origin = _origin(query, sources)
    if kept is not None and not (kept.origin == origin and _are_held(kept.until, found, sources)):
        kept = None
    create_schemas(connection, catalogue, query, sources, None, since=kept.until if kept is not None else None)
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SETS}")
    rows = {}
    for name, select in query.sets.items():
        columns = connection.execute(f"DESCRIBE {select}").fetchall()
        if kept is not None:
            select = f"SELECT * FROM ({select}) UNION {_query(kept.rows[name], [type_ for _, type_, *_ in columns])}"
        connection.execute(f"CREATE OR REPLACE TABLE {SETS}.{quoted(name)} AS {select}")
        texts = ", ".join(f"CAST({quoted(column)} AS VARCHAR)" for column, *_ in columns)
        found_rows = connection.execute(f"SELECT {texts} FROM {SETS}.{quoted(name)} ORDER BY ALL").fetchall()
        rows[name] = [list(row) for row in found_rows]
    return Sets(origin, found, rows)


def _query(rows: list[list[str | None]], types: Sequence[str]) -> str:
    """A query for rows given as text. As one text, which is read in a fifth of the time that VALUES take."""
    values = ", ".join(f"CAST(row[{number}] AS {type_})" for number, type_ in enumerate(types, start=1))
    return f"""SELECT {values} FROM (SELECT unnest(from_json({literal(json.dumps(rows))}, '[["VARCHAR"]]')) AS row)"""


def _origin(query: Query, sources: Mapping[str, DeltaTable]) -> str:
    """What the SELECTs are, and which tables of versions, with which columns, they read."""
    tables = [f"{name} {table.metadata().id} {table.schema().to_json()}" for name, table in sorted(sources.items())]
    return hashlib.sha256("\n".join([*query.sets.values(), *tables]).encode()).hexdigest()


def _are_held(until: Mapping[str, int], found: Mapping[str, int], sources: Mapping[str, DeltaTable]) -> bool:
    """True if the sources hold the versions up to the moments ``until``; ``found`` are their newest moments."""
    return all(
        moment == found[name] or (moment < found[name] and (not moment or holds_moment(sources[name], moment)))
        for name, moment in until.items()
    )


def worth_keeping(sets: Sets, kept: Sets | None, sources: Mapping[str, DeltaTable]) -> bool:
    """True if it saves more to keep ``sets`` than what is ``kept``."""
    if sum(map(len, sets.rows.values())) > _MOST_ROWS:
        return False
    if kept is None or kept.origin != sets.origin or kept.rows != sets.rows:
        return True
    newer = [name for name, moment in sets.until.items() if moment > kept.until[name]]
    return sum(rows_recorded_since(sources[name], kept.until[name]) for name in newer) > _MOST_READ_AGAIN
