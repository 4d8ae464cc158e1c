"""What a server says of its log: whether it may be followed, what is published, and where our slot stands.

Belongs here: the question, and what its answer means. Does not belong here: asking it and reading the log (log.py), and
what a user is told to do (log_needs.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.source.totesys.structure import UNIQUE, unique_columns
from totesys_assets.sql_text import literal

PUBLICATION = "totesys_log"
_PLUGIN = "pgoutput"
# Asked by a plain reader, of any version since PostgreSQL 13: what a version does not know is NULL. to_jsonb() gives
# the columns of a catalogue as they are in each. The timeline is in the name of the log's file; a standby has none.
_STATE = """
WITH door AS (
    SELECT count(*) AS made, count(*) FILTER (
        WHERE has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE')
    ) AS open
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE nspname = 'totesys_log' AND (proname, pg_get_function_identity_arguments(p.oid)) IN (
        ('begin', 'slot name'), ('peek', 'slot name, until pg_lsn, most integer'), ('forget', 'slot name, upto pg_lsn'),
        ('finish', 'slot name')
    )
), publication AS (
    SELECT oid, to_jsonb(p) - 'pubowner' AS told,
        pubinsert AND pubupdate AND pubdelete AND pubtruncate AS is_whole
    FROM pg_publication AS p WHERE pubname = {publication}
), tables AS (
    SELECT c.relname, jsonb_build_object(
        'kind', relkind, 'persistence', relpersistence, 'identity', relreplident, 'oid', c.oid,
        'key', (SELECT indkey::text FROM pg_index WHERE indrelid = c.oid AND indisprimary AND indimmediate),
        'secured', relrowsecurity, 'parts', EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid),
        'member', (SELECT to_jsonb(m) FROM pg_publication_rel AS m JOIN publication ON publication.oid = prpubid
            WHERE prrelid = c.oid)
    ) AS told, {unique} AS unique_columns
    FROM pg_class AS c
    WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {schema}) AND relname IN ({tables})
        AND relkind IN ('r', 'p', 'v', 'm', 'f')
), slot AS (
    SELECT jsonb_build_object(
        'ours', plugin = {plugin} AND database = current_database(), 'plugin', plugin, 'database', database,
        'wal_status', wal_status, 'reason', to_jsonb(s) ->> 'invalidation_reason', 'active_pid', active_pid,
        'restart', (restart_lsn - '0/0')::bigint, 'confirmed', (confirmed_flush_lsn - '0/0')::bigint,
        'safe', safe_wal_size, 'retained', CASE WHEN NOT pg_is_in_recovery() THEN
            (pg_current_wal_insert_lsn() - restart_lsn)::bigint END
    ) AS told
    FROM pg_replication_slots AS s WHERE slot_name = {slot}
)
SELECT jsonb_build_object(
    'server', (SELECT system_identifier FROM pg_control_system()) || '/'
        || CASE WHEN pg_is_in_recovery() THEN 'standby'
                ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END || '/'
        || (SELECT oid FROM pg_database WHERE datname = current_database()),
    'database', current_database(), 'version', current_setting('server_version_num')::int,
    'wal_level', current_setting('wal_level'),
    'keep', pg_size_bytes(current_setting('max_slot_wal_keep_size', true)),
    'idle_timeout', current_setting('idle_replication_slot_timeout', true),
    'slots_allowed', current_setting('max_replication_slots')::int,
    'slots_used', (SELECT count(*) FROM pg_replication_slots),
    'standby', pg_is_in_recovery(),
    'door', (SELECT CASE WHEN open = 4 THEN 'open' WHEN made = 4 THEN 'closed' ELSE 'missing' END FROM door),
    'publication', (SELECT jsonb_build_object('told', told, 'whole', is_whole) FROM publication),
    'tables', (SELECT coalesce(jsonb_object_agg(relname, told || jsonb_build_object('unique', unique_columns)), '{{}}')
        FROM tables),
    'identity', (SELECT md5(told::text || (SELECT coalesce(string_agg(tables.told::text, ' ' ORDER BY relname), '')
        FROM tables)) FROM publication),
    'slot', (SELECT told FROM slot),
    'others', (SELECT coalesce(jsonb_agg(slot_name ORDER BY slot_name), '[]') FROM pg_replication_slots
        WHERE slot_name ~ '^totesys_log_' AND slot_name <> {slot} AND database = current_database()),
    'login', current_user,
    'provider', CASE
        WHEN EXISTS (SELECT FROM pg_proc WHERE proname = 'aurora_version') THEN 'aurora'
        ELSE (SELECT min(CASE rolname WHEN 'rds_superuser' THEN 'rds' WHEN 'cloudsqlsuperuser' THEN 'cloudsql'
            WHEN 'supabase_admin' THEN 'supabase' END) FROM pg_roles) END,
    'flushed', CASE WHEN NOT pg_is_in_recovery() THEN (pg_current_wal_flush_lsn() - '0/0')::bigint END
)
"""


@dataclass(frozen=True)
class LogTable:
    """A table of ToteSys in the log: whether it is published, and what keeps the log from telling all of its changes.

    ``obstacle`` is a clause, as "is unlogged", or None; ``published`` also where there is an obstacle.
    """

    published: bool
    obstacle: str | None


@dataclass(frozen=True)
class Slot:
    """A replication slot. Positions are bytes since the beginning of the log; ``lost``: what it held is gone.

    ``ours``: made by the door in this database. ``restart`` is from where the server keeps its log, ``confirmed`` up to
    where it was forgotten, ``retained`` how many bytes are kept since ``restart``, ``safe`` how many more it may hold;
    all of them None where the slot is lost or has none. ``active_pid`` is the session that reads it now.
    """

    ours: bool
    plugin: str | None
    database: str | None
    wal_status: str | None
    reason: str | None
    active_pid: int | None
    restart: int | None
    confirmed: int | None
    retained: int | None
    safe: int | None

    @property
    def lost(self) -> bool:
        """Whether the server has removed what the slot was to hold: it can never be read again."""
        return self.wal_status == "lost" or self.restart is None


@dataclass(frozen=True)
class LogState:
    """What a server says of its log at one moment.

    ``server`` tells one server, timeline and database from another. ``keep_bytes`` is how much log a slot may hold,
    None for no limit. ``publication`` identifies what is published and how: it differs after any change of the
    publication, also one that was taken back, and after a change of what the tables' changes are told by; None where
    there is no publication. ``whole``: it tells of all four kinds of change. ``door``: "open", "closed" (no right to
    it), "missing". ``slot``: None where none has our name; ``others``: slots of other platforms in this database.
    ``flushed`` is the position up to which the log is on disk; None on a standby. ``provider``: "rds", "aurora",
    "cloudsql", "supabase", or None.
    """

    server: str
    database: str
    version: int
    wal_level: str
    keep_bytes: int | None
    idle_timeout: str | None
    slots_allowed: int
    slots_used: int
    standby: bool
    door: str
    publication: str | None
    whole: bool
    tables: Mapping[str, LogTable]
    slot: Slot | None
    others: tuple[str, ...]
    flushed: int | None
    login: str
    provider: str | None

    @property
    def told(self) -> frozenset[str]:
        """The tables of which the log tells every change."""
        tables = self.tables.items() if self.whole else ()
        return frozenset(name for name, table in tables if table.published and table.obstacle is None)

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> LogState:
        """The state that the row of ``state_query`` tells."""
        keep, publication, slot = found["keep"], found["publication"], found["slot"]
        return cls(
            server=found["server"],
            database=found["database"],
            version=found["version"],
            wal_level=found["wal_level"],
            keep_bytes=None if keep is None or keep < 0 else keep,
            idle_timeout=found["idle_timeout"],
            slots_allowed=found["slots_allowed"],
            slots_used=found["slots_used"],
            standby=found["standby"],
            door=found["door"],
            publication=found["identity"],
            whole=publication is not None and publication["whole"],
            tables={name: _table(name, told) for name, told in found["tables"].items()},
            slot=None if slot is None else Slot(**{**slot, "ours": bool(slot["ours"])}),
            others=tuple(found["others"]),
            flushed=found["flushed"],
            login=found["login"],
            provider=found["provider"],
        )


def state_query(slot: str, schema: str, tables: Collection[str]) -> str:
    """SELECT of one row and one jsonb, for ``LogState.of``."""
    return _STATE.format(
        publication=literal(PUBLICATION),
        plugin=literal(_PLUGIN),
        unique=UNIQUE,
        slot=plain(slot),
        schema=plain(schema),
        tables=", ".join(literal(name) for name in sorted(tables)) or "NULL",
    )


def plain(text: str) -> str:
    """A text as an SQL literal, also where standard_conforming_strings is not set yet."""
    return f"E{literal(text.replace(chr(92), 2 * chr(92)))}"


def _table(name: str, told: Mapping[str, Any]) -> LogTable:
    member, known = told["member"], catalogue().source.get(name)
    obstacle = _obstacle(told, member or {})
    if obstacle is None and known is not None:
        key = frozenset(known.primary_key)
        if not any(columns <= key for columns in unique_columns(told["unique"])):
            obstacle = "has no unique index on its key, so several rows may have one"
    return LogTable(published=member is not None, obstacle=obstacle)


def _obstacle(told: Mapping[str, Any], member: Mapping[str, Any]) -> str | None:
    if told["kind"] not in ("r", "p"):
        return "is no table"
    if told["kind"] == "p" or told["parts"]:
        return "has partitions or tables that inherit from it"
    if told["persistence"] != "p":
        return "is not logged"
    if told["identity"] not in ("d", "f"):
        return "has another replica identity than its primary key or the whole row"
    if told["identity"] == "d" and told["key"] is None:
        return "has no primary key that can be a replica identity"
    if told["secured"]:
        return "has row-level security, of which the log knows nothing"
    if member.get("prqual") is not None:
        return "is published with a condition on its rows"
    if member.get("prattrs") is not None:
        return "is published with some of its columns only"
    return None
