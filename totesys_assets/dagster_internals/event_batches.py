"""Storing Dagster's events in batches: the rows that dagster-postgres would store, in one statement.

Belongs here: how a batch of events becomes rows. Does not belong here: which events are stored in batches, and when,
which is storage.py.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dagster import AssetMaterialization, DagsterEventType, EventLogEntry, serialize_value
from sqlalchemy.engine import Connection

# Stands for the partition in an event of many partitions, until PostgreSQL makes an event for each; and for what is
# materialised, in the text that the materialisations of a step share.
_EACH, _MATERIALIZATION = "<each partition>", "<materialization>"
# Stands for a number in the text that partitions with the same names of metadata share.
_NUMBER = -(2**52) + 1
# An array per column: SQLAlchemy needs 0.3 s for an INSERT of 500 rows, psycopg needs 10 ms for the arrays.
# An event becomes a row for each of its keys. An event without keys becomes one row with NULL.
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
_INSERT_EACH = f"""
WITH stored AS (
    INSERT INTO event_logs (run_id, event, dagster_event_type, "timestamp", step_key, asset_key, partition)
    SELECT
        %(run_id)s,
        replace(%(event)s, '"{_MATERIALIZATION}"', replace(text, '"{_EACH}"', coalesce(to_json(key)::text, 'null'))),
        %(dagster_event_type)s, %(timestamp)s, %(step_key)s, %(asset_key)s, key
    FROM unnest(%(key)s::text[], %(text)s::text[]) WITH ORDINALITY AS partitions (key, text, position)
    ORDER BY position
    RETURNING id
), tagged AS (
    INSERT INTO asset_event_tags (event_id, asset_key, key, value, event_timestamp)
    SELECT id, %(asset_key)s, name, value, %(timestamp)s
    FROM stored CROSS JOIN unnest(%(tags)s::text[], %(values)s::text[]) WITH ORDINALITY AS tags (name, value, position)
    ORDER BY id, position
)
SELECT max(id) FROM stored
"""
_INSERT_CHECKS = """
INSERT INTO asset_check_executions (
    asset_key, check_name, partition, run_id, execution_status, evaluation_event, evaluation_event_timestamp,
    evaluation_event_storage_id
)
SELECT asset_key, check_name, partition, run_id, 'PLANNED', event, "timestamp", event_id
FROM unnest(
    %(asset_key)s::text[], %(check_name)s::text[], %(partition)s::text[], %(run_id)s::text[], %(event)s::text[],
    %(timestamp)s::timestamp[], %(event_id)s::bigint[]
) WITH ORDINALITY AS planned (asset_key, check_name, partition, run_id, event, "timestamp", event_id, place)
ORDER BY place
"""


def insert(connection: Connection, events: Sequence[EventLogEntry]) -> list[int]:
    """Insert Dagster's events in order and return their ids.

    An event that plans the materialisation of many partitions becomes one event per partition; its id is the last
    one's.
    """
    planned = [_planned_partitions(event) for event in events]
    # The number of each event, once per partition.
    rows = [(place, key) for place, keys in enumerate(planned, 1) for key in keys or (None,)]
    columns = {
        "run_id": [event.run_id for event in events],
        "event": [
            serialize_value(_plan_of_each(event) if keys else event)
            for event, keys in zip(events, planned, strict=True)
        ],
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


def insert_each(
    connection: Connection, event: EventLogEntry, tags: Mapping[str, str], others: Mapping[str, Mapping[str, Any]]
) -> int:
    """Insert the materialisation of an asset or a partition and, before it, those of ``others`` in the same step.

    ``others`` has the metadata of each, ``tags`` those of all by which events of assets are found. Returns the id of
    ``event``. Most metadata are counts: their text is made of that of another partition.
    """
    whole = event.get_dagster_event()
    materialization = whole.step_materialization_data.materialization
    marked: Any = whole.step_materialization_data._replace(materialization=_MATERIALIZATION)  # type: ignore[arg-type]
    parameters = {
        "run_id": event.run_id,
        "event": serialize_value(event._replace(dagster_event=whole._replace(event_specific_data=marked))),
        "dagster_event_type": whole.event_type_value,
        "timestamp": _moment(event),
        "step_key": whole.step_key,
        "asset_key": _asset(event),
        "key": [*others, materialization.partition],
        "text": [*_texts(materialization, others.values()), serialize_value(materialization)],
        "tags": list(tags),
        "values": list(tags.values()),
    }
    return int(connection.exec_driver_sql(_INSERT_EACH, parameters).scalar_one())


def insert_planned_checks(connection: Connection, events: Sequence[EventLogEntry], event_ids: Sequence[int]) -> None:
    """Insert the checks that events plan, each for its partitions; events of another kind plan none."""
    rows = []
    for event, event_id in zip(events, event_ids, strict=True):
        if event.dagster_event_type == DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
            plan = event.get_dagster_event().asset_check_planned_data
            text, moment = serialize_value(event), _moment(event)
            rows += [
                (plan.asset_key.to_string(), plan.check_name, partition, event.run_id, text, moment, event_id)
                for partition in (plan.partitions_subset.get_partition_keys() if plan.partitions_subset else [None])
            ]
    if rows:
        names = ("asset_key", "check_name", "partition", "run_id", "event", "timestamp", "event_id")
        columns = {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
        connection.exec_driver_sql(_INSERT_CHECKS, columns)


def _planned_partitions(event: EventLogEntry) -> tuple[str | None, ...]:
    """The partitions whose materialisation the event plans; none if it plans none."""
    if event.dagster_event_type != DagsterEventType.ASSET_MATERIALIZATION_PLANNED:
        return ()
    subset = event.get_dagster_event().partitions_subset
    return tuple(subset.get_partition_keys()) if subset is not None else ()


def _plan_of_each(event: EventLogEntry) -> EventLogEntry:
    """The event that Dagster would make for one of many partitions, with a placeholder for the partition's key."""
    whole = event.get_dagster_event()
    plan = whole.asset_materialization_planned_data._replace(partition=_EACH, partitions_subset=None)
    return event._replace(dagster_event=whole._replace(event_specific_data=plan))


def _texts(materialization: AssetMaterialization, others: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What is materialised with each of ``others`` as metadata, as Dagster serialises it, for any partition."""
    templates: dict[tuple[str, ...], str] = {}
    for metadata in others:
        names = tuple(metadata)
        if any(type(value) is not int for value in metadata.values()):  # True is an int, but no number in JSON
            yield serialize_value(_for_each(materialization, metadata))
            continue
        if names not in templates:
            text = serialize_value(_for_each(materialization, dict.fromkeys(names, _NUMBER)))
            templates[names] = text.replace("%", "%%").replace(str(_NUMBER), "%d")
        yield templates[names] % tuple(metadata.values())


def _for_each(materialization: AssetMaterialization, metadata: Mapping[str, Any]) -> AssetMaterialization:
    """The materialisation with other metadata, and a placeholder for the partition's key."""
    return materialization._replace(partition=_EACH).with_metadata(metadata)


def _asset(event: EventLogEntry) -> str | None:
    key = event.get_dagster_event().asset_key
    return key.to_string() if key is not None else None


def _moment(event: EventLogEntry) -> datetime:
    """The event's time as the tables hold it: UTC, without a time zone."""
    return datetime.fromtimestamp(event.timestamp, UTC).replace(tzinfo=None)
