"""Rows that were made along with the first capture, as an engine: they need only be committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.days import Days
from totesys_assets.lake.commit import commit
from totesys_assets.lake.read import lies_within, recorded_until
from totesys_assets.lake.written import Written
from totesys_assets.transform.engines.interface import WRITER, Engine, Work


@dataclass
class Made:
    """The rows of star ``table`` of all versions of the table ``origin`` up to ``until`` (microseconds), in files.

    ``is_tried``: a commit that names the files was tried. They stay, whatever became of it: an answer may be lost.
    """

    table: Table
    written: Written
    origin: str
    until: int
    is_tried: bool = False
    is_committed: bool = False

    def discard(self) -> None:
        """Remove the files, if no commit can name them."""
        if not self.is_tried:
            self.written.discard()


@dataclass(frozen=True)
class Passed:
    """Commits what was ``made``, once, where that is all that is to be built. Else the ``other`` engine builds."""

    made: Made
    other: Engine

    @property
    def name(self) -> str:
        """The other's: what is passed on is made by the engine that would build it."""
        return self.other.name

    def append(self, work: Work, since: Mapping[str, int], marks: Mapping[str, int]) -> None:
        """Rows that come after those of a first build: not these."""
        self.other.append(work, since, marks)

    def replace(self, work: Work, days: Days | None, rows: Mapping[str, int], marks: Mapping[str, int]) -> None:
        """The rows that were made, if there are no others yet, and no versions but those."""
        if not self._is_all(work, days):
            self.other.replace(work, days, rows, marks)
            return
        self.made.is_tried = True
        commit(Written(work.target, self.made.written.actions, self.made.written.rows), WRITER, marks)
        self.made.is_committed = True

    def _is_all(self, work: Work, days: Days | None) -> bool:
        """Whether what was made is what a build of ``days`` would make."""
        if self.made.is_tried or work.target.file_uris():
            return False
        ((name, source),) = work.sources.items()
        if (str(source.metadata().id), recorded_until(source)) != (self.made.origin, self.made.until):
            return False
        day = work.catalogue.source[name].day_column
        return days is None or (day is not None and lies_within(source, day, days))
