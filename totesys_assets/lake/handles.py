"""Handles of the lake's tables, used again while they are current: opening a table reads its log.

Belongs here: whether a handle shows the table as it is now, and who has it. Does not belong here: which tables there
are (tables.py).

A handle is current if the file of its newest commit is still the same, and there is no commit with the next number.
Asking a folder takes microseconds; opening a table in it takes milliseconds. A table that was removed and made anew
has another file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock
from urllib.parse import unquote, urlsplit

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileInfo, FileType, LocalFileSystem, SubTreeFileSystem

from totesys_assets import s3
from totesys_assets.lake.known import inherit

# Conditional PUT makes commits exclusive; without it two writers could both succeed. Buckets that lock objects (object
# lock with a default retention) require checksums.
_S3 = {"aws_conditional_put": "etag", "aws_checksum_algorithm": "sha256"}


_Files = DeltaStorageHandler | SubTreeFileSystem


def storage_options(uri: str) -> dict[str, str] | None:
    """How delta-rs is to use the storage of a lake or a table; None for a folder."""
    if not uri.startswith("s3://"):
        return None
    return _S3 | s3.storage_options(urlsplit(uri).netloc)


@dataclass(frozen=True)
class _Kept:
    """A handle, the version that it is to show, and what the file of that commit is like."""

    handle: DeltaTable
    version: int
    files: _Files
    commit: FileInfo


class Handles:
    """Handles of the tables of one lake by their URIs; ``options`` are those of its storage.

    Of each table there is at most one for readers, which stays as it is, the one that readers had before that, and one
    that moves on with the table, which one thread has at a time. Every other handle belongs to whoever opened it.
    """

    def __init__(self, options: Mapping[str, str] | None) -> None:
        self._options = dict(options) if options is not None else None
        self._shared: dict[str, _Kept] = {}
        self._former: dict[str, _Kept] = {}
        self._moving: dict[str, _Kept] = {}
        self._locks: dict[tuple[str, str], Lock] = {}

    def open(self, uri: str) -> DeltaTable | None:
        """A new handle, which the caller may write with. None if there is no table. Raises OSError, DeltaError."""
        kept = self._shared.get(uri)  # before it is opened: what is then still current was so all the while
        try:
            handle = DeltaTable(uri, storage_options=self._options)
        except TableNotFoundError:
            return None
        if kept is not None and _is_current(kept):
            inherit(handle, kept.handle)
        return handle

    def find(self, uri: str) -> DeltaTable | None:
        """A handle that shows the table as it is now, to be read only. None if there is none. Raises as ``open``."""
        kept = self._shared.get(uri)
        if kept is not None and _is_current(kept):
            return kept.handle
        with self._lock("shared", uri):
            other = self._shared.get(uri)
            # Another thread has opened it; it may have begun before this one asked.
            if other is not None and other is not kept and _is_current(other):
                return other.handle
            handle = self.open(uri)
            self._retire(uri)
            if handle is not None:
                self._shared[uri] = self._keep(uri, handle)
            return handle

    def find_version(self, uri: str, version: int) -> DeltaTable | None:
        """A handle that shows the table as it was, to be read only. None where its log does not go back so far."""
        former = self._former.get(uri)
        if former is not None and former.version == version:
            return former.handle
        try:
            return DeltaTable(uri, version=version, storage_options=self._options)
        except DeltaError:
            return None

    def has_files(self, uri: str, paths: Sequence[str]) -> bool:
        """True if these files of the table are all there."""
        found = _files(uri, self._options).get_file_info([unquote(path) for path in paths])
        return all(each.type == FileType.File for each in found)

    def share(self, uri: str, handle: DeltaTable) -> None:
        """Let readers have ``handle``, with which nobody writes any more."""
        self._retire(uri)
        with suppress(OSError, DeltaError):  # what was written is written; who reads opens the table
            self._shared[uri] = self._keep(uri, handle)

    @contextmanager
    def moving(self, uri: str) -> Iterator[DeltaTable | None]:
        """The handle that moves on with the table, as it is now; for the block it is the caller's, also to write.

        None if there is no table. Raises as ``open``.
        """
        with self._lock("moving", uri):
            kept = self._moving.pop(uri, None)  # what fails in the block leaves it in a state that nobody knows
            handle = kept.handle if kept is not None and _is_moved(kept) else self.open(uri)
            yield handle
            with suppress(OSError, DeltaError):  # what was done in the block is done
                if handle is not None:
                    self._moving[uri] = kept if kept and kept.version == handle.version() else self._keep(uri, handle)

    def _retire(self, uri: str) -> None:
        kept = self._shared.pop(uri, None)
        if kept is not None:
            self._former[uri] = kept

    def _lock(self, kind: str, uri: str) -> Lock:
        return self._locks.setdefault((kind, uri), Lock())

    def _keep(self, uri: str, handle: DeltaTable) -> _Kept:
        files = _files(uri, self._options)
        version = handle.version()
        (commit,) = files.get_file_info([_commit(version)])
        return _Kept(handle, version, files, commit)


def _files(uri: str, options: dict[str, str] | None) -> _Files:
    """The files of a table. A folder is asked without delta-rs, which takes twenty times as long for it."""
    return SubTreeFileSystem(uri, LocalFileSystem()) if options is None else DeltaStorageHandler(uri, options)


def _is_current(kept: _Kept) -> bool:
    return _has_moved(kept) is False


def _has_moved(kept: _Kept) -> bool | None:
    """Whether there are newer commits. None if the table is another, or if that cannot be told."""
    try:
        commit, next_one = kept.files.get_file_info([_commit(kept.version), _commit(kept.version + 1)])
    except (OSError, DeltaError):  # opening the table tells what is wrong
        return None
    return next_one.type != FileType.NotFound if _is_same(commit, kept.commit) else None


def _is_moved(kept: _Kept) -> bool:
    """Bring a handle up to date. False if it is one of another table, or of commits that are gone."""
    moved = _has_moved(kept)
    if moved:
        try:
            kept.handle.update_incremental()
        except (OSError, DeltaError):
            return False
    return moved is not None


def _is_same(found: FileInfo, known: FileInfo) -> bool:
    return found.type == FileType.File and (found.size, found.mtime_ns) == (known.size, known.mtime_ns)


def _commit(version: int) -> str:
    return f"_delta_log/{version:020}.json"
