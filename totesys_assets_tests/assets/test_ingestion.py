"""The assets of the ingestion zone: what they say of a run that captures several sources."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from totesys_assets.assets.describe import definition_metadata
from totesys_assets.assets.ingestion import _tag_versions
from totesys_assets.automation.records import versions_of
from totesys_assets.capture.difference import Captured
from totesys_assets.capture.ledger import Entry
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.days import WHOLE
from totesys_assets.names import VERSIONS_TAG

pytestmark = pytest.mark.pure


@dg.job
def nothing() -> None:
    """A job without a step."""


def test_captures_of_two_sources_that_end_at_once_are_both_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    with dg.instance_for_test() as instance:
        run = instance.create_run_for_job(nothing)
        read = instance.get_run_by_id

        def slowly(run_id: str) -> dg.DagsterRun | None:
            found = read(run_id)
            time.sleep(0.2)
            return found

        monkeypatch.setattr(instance, "get_run_by_id", slowly)
        context: Any = SimpleNamespace(instance=instance, run=run)

        def end(table: str) -> None:
            entry = Entry(f"ingestion/{table}", WHOLE, "state", 2, datetime.now(UTC), run.run_id, inserted=2)
            _tag_versions(context, catalogue().source[table], Captured([entry]))

        threads = [threading.Thread(target=end, args=[table]) for table in ("staff", "design")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        tagged = read(run.run_id)
        assert tagged is not None
        assert sorted(tagged.tags[VERSIONS_TAG].split(", ")) == ["design 2", "staff 2"]
        # A step that was retried adds to what it said before; and anybody may write anything there.
        instance.add_run_tags(tagged.run_id, {VERSIONS_TAG: "design 2, staff 2, design 1, of hand"})
        assert versions_of(instance, tagged.run_id) == {"design": 3, "staff": 2}


@pytest.mark.parametrize(
    ("source", "clock"), [("totesys", "the source's clock"), ("files", "the clock of the machine that copied it")]
)
def test_the_time_of_a_version_is_said_to_be_of_the_clock_that_it_is_of(source: str, clock: str) -> None:
    table = replace(catalogue().source["staff"], group=source)
    schema = definition_metadata(table, "staff", "deltalake", defined_in=[], versioned=True)["dagster/column_schema"]
    said = {column.name: column.description for column in schema.columns}
    assert said["_recorded_at"] == f"when this version was first seen, by {clock}"
