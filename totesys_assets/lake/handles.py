"""Handles of the lake's tables, used again as long as nobody committed since: opening a table reads its whole log.

Belongs here: whether a handle still shows the table as it is now. Does not belong here: which tables there are
(tables.py).

Two questions tell whether it does, and cost a hundredth of opening a local table: is the newest commit that the handle
knows still the same file, and is there none with the next number? A table that was removed and made anew has another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileInfo, FileType


@dataclass(frozen=True)
class _Kept:
    """A handle, the version that it is to show, and what the file of that commit is like."""

    handle: DeltaTable
    version: int
    files: DeltaStorageHandler
    commit: FileInfo


class Handles:
    """Handles of the tables of one lake by their URIs; ``options`` are those of its storage."""

    def __init__(self, options: Mapping[str, str] | None) -> None:
        self._options = dict(options) if options is not None else None
        self._kept: dict[str, _Kept] = {}

    def open(self, uri: str) -> DeltaTable | None:
        """A new handle, which the caller may write with. None if there is no table. Raises OSError, DeltaError."""
        try:
            return DeltaTable(uri, storage_options=self._options)
        except TableNotFoundError:
            return None

    def find(self, uri: str) -> DeltaTable | None:
        """A handle that shows the table as it is now, to be read only. None if there is none. Raises as ``open``."""
        kept = self._kept.get(uri)
        if kept is not None and _is_as_it_was(kept):
            return kept.handle
        handle = self.open(uri)
        if handle is None:
            self._kept.pop(uri, None)
        else:
            self._keep(uri, handle)
        return handle

    def share(self, uri: str, handle: DeltaTable) -> None:
        """Hand out ``handle`` from now on, with which nobody writes any more."""
        self._keep(uri, handle)

    def _keep(self, uri: str, handle: DeltaTable) -> None:
        files = DeltaStorageHandler(uri, self._options)
        version = handle.version()
        (commit,) = files.get_file_info([_commit(version)])
        self._kept[uri] = _Kept(handle, version, files, commit)


def _is_as_it_was(kept: _Kept) -> bool:
    try:
        commit, next_one = kept.files.get_file_info([_commit(kept.version), _commit(kept.version + 1)])
    except (OSError, DeltaError):  # opening the table tells what is wrong
        return False
    return next_one.type == FileType.NotFound and commit.type == FileType.File and _same(commit, kept.commit)


def _same(one: FileInfo, other: FileInfo) -> bool:
    return (one.size, one.mtime_ns) == (other.size, other.mtime_ns)


def _commit(version: int) -> str:
    return f"_delta_log/{version:020}.json"
