"""What a server must offer before its log can be followed, and what to do where something is missing.

Belongs here: pure functions from the server's state to sentences. Does not belong here: asking the server (log.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from totesys_assets.source.totesys.log_state import LogState

_OLDEST = 140_000
_DOOR = "Run deploy/sql/source_log.sql as the owner of ToteSys"
# By provider, None for a server of one's own: where its settings are made, and who may make the door.
_LEVEL: Mapping[str | None, str] = {
    None: "Set wal_level = logical in postgresql.conf and restart the server.",
    "rds": "Set rds.logical_replication = 1 in the parameter group and reboot the instance.",
    "aurora": "Set rds.logical_replication = 1 in the cluster's parameter group and reboot the writer.",
    "cloudsql": "Set the flag cloudsql.logical_decoding = on, which restarts the instance.",
    "supabase": "Supabase sets wal_level = logical itself: ask its support.",
}
_KEEP: Mapping[str | None, str] = {
    None: "Set max_slot_wal_keep_size, say to 10GB, in postgresql.conf and reload it (SELECT pg_reload_conf()).",
    "rds": "Set max_slot_wal_keep_size, in MB, in the parameter group.",
    "aurora": "Set max_slot_wal_keep_size, in MB, in the cluster's parameter group.",
    "cloudsql": "Cloud SQL is said not to offer max_slot_wal_keep_size: leave TOTESYS_LOG off where that is so.",
    "supabase": "Set it with: supabase postgres-config update --config max_slot_wal_keep_size=4GB.",
}
_SLOTS: Mapping[str | None, str] = {
    None: "Drop a slot that nobody reads, or set a larger max_replication_slots and restart the server.",
    "supabase": "Drop a slot that nobody reads, or set a larger max_replication_slots with supabase postgres-config.",
}
_MAKER: Mapping[str | None, str] = {
    "cloudsql": " whose login has the right: ALTER USER postgres WITH REPLICATION",
}


@dataclass(frozen=True)
class Need:
    """Something that the server must offer: what was ``found``, and what is ``to_do`` where it is not ``met``.

    ``advice``: the log can be followed without it.
    """

    name: str
    met: bool
    found: str
    to_do: str = ""
    advice: bool = False


def needs(state: LogState, tables: Collection[str], schema: str = "public") -> list[Need]:
    """All that following the log of ``tables`` in ``schema`` needs, in the order in which to see to it."""
    where = state.provider
    keep, timeout = state.keep_bytes, state.idle_timeout
    free = state.slots_allowed - state.slots_used
    found = [
        Need(
            "server",
            state.version >= _OLDEST,
            f"PostgreSQL {_version(state.version)}",
            "Upgrade it to PostgreSQL 14 or later.",
        ),
        Need(
            "primary",
            not state.standby,
            "a standby" if state.standby else "a primary",
            "Let TOTESYS_URL name the primary. A standby is compared only.",
        ),
        Need("wal_level", state.wal_level == "logical", state.wal_level, _of(_LEVEL, where)),
        Need(
            "max_slot_wal_keep_size",
            keep is not None,
            "no limit, so that a slot that is not read could fill the disk" if keep is None else _size(keep),
            _of(_KEEP, where),
        ),
    ]
    if timeout is not None:
        found.append(
            Need(
                "idle_replication_slot_timeout",
                timeout != "0",
                "none" if timeout == "0" else timeout,
                "Set it, say to 3d: it ends a slot that was left behind before it has used up its limit.",
                advice=True,
            )
        )
    found += [
        Need(
            "replication slots",
            free > 0 or state.slot is not None,
            f"{state.slots_used} of {state.slots_allowed} in use",
            _of(_SLOTS, where),
        ),
        _door(state, schema),
        Need(
            "publication",
            state.publication is not None and state.whole,
            "missing" if state.publication is None else "there" if state.whole else "without some kinds of changes",
            f"{_DOOR}{_MAKER.get(where, '')}."
            if state.publication is None
            else "ALTER PUBLICATION totesys_log SET (publish = 'insert, update, delete, truncate').",
        ),
        *_tables(state, tables),
    ]
    return found


def _door(state: LogState, schema: str) -> Need:
    names = ["" if schema == "public" else f" -v schema='{schema}'"]
    if state.login != "totesys_reader":
        names.append(f" -v role='{state.login}'")
    return Need(
        "door",
        state.door == "open",
        {"open": "open", "closed": f"closed to {state.login}"}.get(state.door, "missing"),
        f"{_DOOR}{_MAKER.get(state.provider, '')}: psql{''.join(names)} -f deploy/sql/source_log.sql.",
    )


def _tables(state: LogState, tables: Collection[str]) -> Iterator[Need]:
    """A need for each table that is not told of as a whole, or one for all of them.

    Without a publication, whose need says what to do, only what else stands in a table's way.
    """
    unmet = 0
    for name in sorted(tables):
        table = state.tables.get(name)
        obstacle = "is missing" if table is None else table.obstacle
        if obstacle is not None:
            unmet += 1
            yield Need(f"table {name}", False, obstacle, "Mend that, or leave it: the table is compared as before.")
        elif table is not None and not table.published and state.publication is not None:
            unmet += 1
            yield Need(f"table {name}", False, "is not published", f"{_DOOR}.")
    if not unmet and state.publication is not None:
        yield Need("tables", True, f"all {len(tables)} are published as a whole")


def _of(sentences: Mapping[str | None, str], provider: str | None) -> str:
    return sentences.get(provider, sentences[None])


def _version(number: int) -> str:
    return f"{number // 10_000}.{number % 10_000}"


def _size(count: int) -> str:
    return f"{count / 1024**3:.1f} GB" if count >= 1024**3 else f"{count / 1024**2:.0f} MB"
