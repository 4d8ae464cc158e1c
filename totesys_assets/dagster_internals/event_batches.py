"""Dagster's events in batches: the rows that dagster-postgres stores, put into its tables with one statement for all.

Belongs here: how a batch of events becomes rows. Does not belong here: which events are stored in batches, and when,
which is storage.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dagster import DagsterEventType, EventLogEntry, serialize_value
from sqlalchemy.engine import Connection

# What a planned event of many partitions has for a partition, until PostgreSQL makes one of it for each.
_EACH = "<each partition>"
# What the text shared by the materialisations of a step has for what each of them has of its own.
_TIME, _MATERIALIZATION = "<time>", "<materialization>"
# An array per column, for SQLAlchemy takes 0.3 s to write an INSERT of 500 rows, and psycopg 10 ms to fill in arrays.
# An event becomes a row for each of its keys; one without keys has one, NULL.
_INSERT = f"""
WITH stored AS (
    SELECT * FROM unnest(
        %(run_id)s::text[], %(event)s::text[], %(dagster_event_type)s::text[], %(timestamp)s::timestamp[],
        %(step_key)s::text[], %(asset_key)s::text[], %(partition)s::text[]
    ) WITH ORDINALITY AS columns (run_id, event, dagster_event_type, "timestamp", step_key, asset_key, partition, place)
)
INSERT INTO event_logs (run_id, event, dagster_event_type, "timestamp", step_key, asset_key, partition)
SELECT
    run_id, CASE WHEN key IS NULL THEN event ELSE replace(event, '"{_EACH}"', to_json(key)::text) END,
    dagster_event_type, "timestamp", step_key, asset_key, coalesce(key, partition)
FROM unnest(%(place)s::bigint[], %(key)s::text[]) WITH ORDINALITY AS keys (place, key, position)
JOIN stored USING (place)
ORDER BY position
RETURNING id
"""
_INSERT_TAGS = """
INSERT INTO asset_event_tags (event_id, asset_key, key, value, event_timestamp)
SELECT * FROM unnest(
    %(event_id)s::bigint[], %(asset_key)s::text[], %(key)s::text[], %(value)s::text[], %(timestamp)s::timestamp[]
)
"""


def insert(connection: Connection, events: Sequence[EventLogEntry]) -> list[int]:
    """Insert Dagster's events, in their order; returns for each its id.

    One that plans the materialisation of many partitions becomes one event for each of these, and has the last's id.
    """
    planned = [_planned_partitions(event) for event in events]
    # The events by their numbers, each as often as it has partitions.
    rows = [(place, key) for place, keys in enumerate(planned, 1) for key in keys or (None,)]
    columns = {
        "run_id": [event.run_id for event in events],
        "event": _serialized(
            _plan_of_each(event) if keys else event for event, keys in zip(events, planned, strict=True)
        ),
        "dagster_event_type": [event.get_dagster_event().event_type_value for event in events],
        "timestamp": [_moment(event) for event in events],
        "step_key": [event.get_dagster_event().step_key for event in events],
        "asset_key": [_asset(event) for event in events],
        "partition": [event.get_dagster_event().partition for event in events],
        "place": [place for place, _ in rows],
        "key": [key for _, key in rows],
    }
    inserted = connection.exec_driver_sql(_INSERT, columns).scalars()
    return list({place: int(number) for (place, _), number in zip(rows, inserted, strict=True)}.values())


def insert_tags(
    connection: Connection,
    events: Sequence[EventLogEntry],
    event_ids: Sequence[int],
    tags: Sequence[Mapping[str, str]],
) -> None:
    """Insert the tags by which events of assets are found, those of each event in ``tags``."""
    rows = [
        (event_id, _asset(event), key, value, _moment(event))
        for event, event_id, of_event in zip(events, event_ids, tags, strict=True)
        for key, value in of_event.items()
    ]
    if rows:
        names = ("event_id", "asset_key", "key", "value", "timestamp")
        columns = {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
        connection.exec_driver_sql(_INSERT_TAGS, columns)


def _planned_partitions(event: EventLogEntry) -> tuple[str | None, ...]:
    """The partitions whose materialisation the event plans; none for one of another kind, or of no partition."""
    if event.dagster_event_type != DagsterEventType.ASSET_MATERIALIZATION_PLANNED:
        return ()
    subset = event.get_dagster_event().partitions_subset
    return tuple(subset.get_partition_keys()) if subset is not None else ()


def _plan_of_each(event: EventLogEntry) -> EventLogEntry:
    """The event that plans one of many partitions, as Dagster makes it, but for the partition's key."""
    whole = event.get_dagster_event()
    plan = whole.asset_materialization_planned_data._replace(partition=_EACH, partitions_subset=None)
    return event._replace(dagster_event=whole._replace(event_specific_data=plan))


def _serialized(events: Iterable[EventLogEntry]) -> list[str]:
    """Each event as Dagster serialises it.

    The materialisations of a step differ in their time and in what is materialised. What they share, the larger part,
    is serialised once.
    """
    texts: list[str] = []
    shared, template = None, ""
    for event in events:
        whole = event.get_dagster_event()
        if event.dagster_event_type != DagsterEventType.ASSET_MATERIALIZATION:
            texts.append(serialize_value(event))
            continue
        data = whole.step_materialization_data
        marked: dict[str, Any] = {"materialization": _MATERIALIZATION}
        marked = {"timestamp": _TIME, "dagster_event": whole._replace(event_specific_data=data._replace(**marked))}
        rest = event._replace(**marked)
        if rest != shared:
            shared, template = rest, serialize_value(rest)
        text = template.replace(f'"{_TIME}"', repr(event.timestamp), 1)
        texts.append(text.replace(f'"{_MATERIALIZATION}"', serialize_value(data.materialization), 1))
    return texts


def _asset(event: EventLogEntry) -> str | None:
    key = event.get_dagster_event().asset_key
    return key.to_string() if key is not None else None


def _moment(event: EventLogEntry) -> datetime:
    """The event's time as the tables have it: UTC, without saying so."""
    return datetime.fromtimestamp(event.timestamp, UTC).replace(tzinfo=None)
