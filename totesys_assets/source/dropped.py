"""Files that people drop for a table: each is read, or its last good copy.

Belongs here: what becomes of a file that cannot be read. Does not belong here: where files are (file_store.py), and
what is in them, which the source says that reads them.

What was captured of a file stays as it is while the file cannot be read. So the lake has a copy of each file as it was
when it was captured last, and a file that cannot be read is taken for its copy. A copy of a file that is gone is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from totesys_assets.engine import one_line
from totesys_assets.source.file_store import File, FileStore, Unreadable

T = TypeVar("T")
_COPIES = "file_copy"


@dataclass(frozen=True)
class Dropped(Generic[T]):
    """What was read of the files of one folder.

    ``read``: name -> what ``parse`` made of it. ``unreadable``: name -> why it, or its present content, is not read.
    """

    read: dict[str, T]
    unreadable: dict[str, str]
    contents: dict[str, bytes]


def copies_of(lake_uri: str) -> FileStore:
    """Where the lake keeps its copies."""
    return FileStore(f"{lake_uri}/{_COPIES}", "LAKE_URI")


def read_dropped(
    store: FileStore, copies: FileStore, files: Sequence[File], parse: Callable[[str, bytes], T]
) -> Dropped[T]:
    """Read all ``files``. ``parse`` raises Unreadable for a content that is not of its kind.

    Raises TableBusy if a file is being written, and ConnectionFailed if the place does not answer.
    """
    found: Dropped[T] = Dropped({}, {}, {})
    for file in files:
        try:
            content = store.read(file)
            found.read[file.name] = parse(file.name, content)
            found.contents[file.name] = content
        except Unreadable as problem:
            found.unreadable[file.shown.rpartition("/")[2]] = one_line(problem)
            if copy := copies.find(file.path):
                try:
                    found.read[file.name] = parse(file.name, copy)
                except Unreadable:  # the catalogue asks for more than it did
                    continue
    return found


def keep_copies(copies: FileStore, folder: str, found: Dropped[T]) -> None:
    """Copy what was read well, and empty the copies of files that are gone."""
    held = {each.name for each in copies.files(folder) if each.size}
    for name, content in found.contents.items():
        if name not in held or copies.find(f"{folder}/{name}") != content:
            copies.write(f"{folder}/{name}", content)
    for name in held - found.contents.keys() - found.unreadable.keys():
        copies.write(f"{folder}/{name}", b"")


def instant_of(files: Sequence[File], now: int) -> str:
    """Differs whenever a file was written, came or went; ``now`` makes that of a fresh file like no other."""
    stamps = sorted((each.path, each.stamp) for each in files)
    return f"{stamps} {now if any(each.is_fresh for each in files) else ''}"
