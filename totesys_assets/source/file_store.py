"""Files in a folder or a bucket: listing, reading, and writing them whole.

Belongs here: what both kinds of place have in common, and the sentences for what goes wrong. Does not belong here: what
is in the files.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from totesys_assets import s3
from totesys_assets.errors import ConnectionFailed, PlatformError, TableBusy

# A larger file is not read. To read one of this size, a quarter of a million rows of CSV, takes 400 MB of memory.
MOST_BYTES = 10_000_000
# Clocks of file systems tick at most this slowly: a file written twice within a tick has the same times both times.
_TICK_SECONDS = 2.0
# A bucket that does not answer must not hold up the other sources.
_CONNECT_SECONDS, _READ_SECONDS, _ATTEMPTS = 5, 20, 3
# Answers of S3 that say that the object is not the one that was listed.
_IS_ANOTHER = ("PreconditionFailed", "NoSuchKey", "404", "412", "ConditionalRequestConflict")


class Unreadable(PlatformError):
    """One file cannot be read; the others can."""


@dataclass(frozen=True)
class File:
    """A file. ``path`` begins with its folder; ``stamp`` is another once the file was written or replaced.

    ``is_fresh``: it was written so recently that the next write may leave the same stamp.
    """

    path: str
    size: int
    stamp: str
    is_fresh: bool

    @property
    def name(self) -> str:
        """Its name, without the folder."""
        return self.path.rpartition("/")[2]

    @property
    def shown(self) -> str:
        """Its path as text, with the bytes of a name that are not UTF-8 written out."""
        return self.path.encode(errors="surrogateescape").decode(errors="backslashreplace")


class FileStore:
    """The files below ``uri``, a folder or ``s3://bucket/prefix``, in folders of one level. ``said_by`` names it."""

    def __init__(self, uri: str, said_by: str) -> None:
        self.uri, self._said_by = uri, said_by
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        # None: it is a folder.
        self._bucket: str | None = bucket if uri.startswith("s3://") else None
        self._prefix = f"{prefix}/" if prefix else ""

    def files(self, folder: str) -> list[File]:
        """The files of a folder by name, without those that begin with a dot. A folder that is not there has none.

        Raises ConnectionFailed where the place cannot be read.
        """
        found = self._listed(folder) if self._bucket is None else self._objects(folder)
        return sorted((each for each in found if not each.name.startswith(".")), key=lambda each: each.name)

    def read(self, file: File) -> bytes:
        """The content of a file as it was listed.

        Raises Unreadable for one that is too large, that nobody may read, or whose name cannot be kept, and TableBusy
        if it is another by now.
        """
        if file.shown != file.path:
            raise Unreadable("its name is not in UTF-8")
        if file.size > MOST_BYTES:
            raise Unreadable(f"it has {file.size:,} bytes, and at most {MOST_BYTES:,} are read")
        return self._content(file) if self._bucket is None else self._object(file)

    def find(self, path: str) -> bytes | None:
        """The content of a file that this platform alone writes; None if there is none."""
        if self._bucket is None:
            try:
                return Path(self.uri, path).read_bytes()
            except FileNotFoundError:
                return None
            except OSError as error:
                raise self._away(error) from None
        with self._answers() as client:
            key = self._prefix + path
            # Asked for first: who may list only a prefix is told of a missing object that it is forbidden.
            found = client.list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=1).get("Contents", ())
            if not any(each["Key"] == key for each in found):
                return None
            content: bytes = client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            return content

    def write(self, path: str, content: bytes) -> None:
        """Write a file whole: who reads it finds what was there before, or all of this."""
        if self._bucket is not None:
            with self._answers() as client:
                client.put_object(Bucket=self._bucket, Key=self._prefix + path, Body=content)
            return
        target = Path(self.uri, path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".", dir=target.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).chmod(0o644)  # as any file of the folder: others are to read it
                Path(name).replace(target)
            except BaseException:
                with suppress(OSError):
                    Path(name).unlink()
                raise
        except OSError as error:
            raise ConnectionFailed(f'"{path}" cannot be written in {self.uri} ({error.strerror}).') from None

    def make_folder(self, folder: str) -> None:
        """Make a folder for people to drop files in, if it is not there; in a bucket, what consoles show as one."""
        if self._bucket is not None:
            with self._answers() as client:
                client.put_object(Bucket=self._bucket, Key=f"{self._prefix}{folder}/", Body=b"")
            return
        try:
            Path(self.uri, folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConnectionFailed(f'"{folder}" cannot be made in {self.uri} ({error.strerror}).') from None

    def delete(self, path: str) -> None:
        """Remove a file, if it is there."""
        if self._bucket is not None:
            with self._answers() as client:
                client.delete_object(Bucket=self._bucket, Key=self._prefix + path)
            return
        try:
            Path(self.uri, path).unlink(missing_ok=True)
        except OSError as error:
            raise ConnectionFailed(f'"{path}" cannot be removed from {self.uri} ({error.strerror}).') from None

    # A folder

    def _listed(self, folder: str) -> Iterator[File]:
        now = time.time_ns()
        try:
            for entry in os.scandir(Path(self.uri, folder)):
                with suppress(FileNotFoundError):  # removed meanwhile
                    found, is_file = _found(entry)
                    if is_file:
                        times = (found.st_mtime_ns, found.st_ctime_ns)
                        # A clock may go back, and a file may bear a time to come.
                        is_fresh = any(abs(now - each) < _TICK_SECONDS * 1e9 for each in times)
                        yield File(f"{folder}/{entry.name}", found.st_size, _stamp(found), is_fresh)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._away(error) from None

    def _content(self, file: File) -> bytes:
        path = Path(self.uri, file.path)
        try:
            with path.open("rb") as opened:
                content = opened.read(MOST_BYTES + 1)
                is_same = _stamp(os.fstat(opened.fileno())) == _stamp(path.stat()) == file.stamp
        except FileNotFoundError:
            if _is_lost_link(path, file):
                raise Unreadable("it is a link that leads nowhere") from None
            raise _busy(file) from None
        except OSError as error:
            raise Unreadable(f"the system says: {error.strerror}") from None
        if not is_same:
            raise _busy(file)
        return content

    def _away(self, error: OSError) -> ConnectionFailed:
        return ConnectionFailed(f"{self._said_by} leads to {self.uri}, which cannot be read ({error.strerror}).")

    # A bucket

    def _objects(self, folder: str) -> Iterator[File]:
        prefix = f"{self._prefix}{folder}/"
        with self._answers() as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix, Delimiter="/")
            for page in pages:
                for each in page.get("Contents", ()):
                    if each["Key"] != prefix:  # what the console makes for a folder
                        path = each["Key"].removeprefix(self._prefix)
                        yield File(path, each["Size"], each["ETag"], is_fresh=False)

    def _object(self, file: File) -> bytes:
        from botocore.exceptions import ClientError

        with self._answers() as client:
            try:
                answer = client.get_object(Bucket=self._bucket, Key=self._prefix + file.path, IfMatch=file.stamp)
                content: bytes = answer["Body"].read()
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in _IS_ANOTHER:
                    raise _busy(file) from None
                raise
            return content

    @cached_property
    def _client(self) -> Any:
        return s3.client(
            str(self._bucket),
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"total_max_attempts": _ATTEMPTS},
        )

    @contextmanager
    def _answers(self) -> Iterator[Any]:
        """A client for the bucket, with sentences for what it raises."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield self._client
        except (BotoCoreError, ClientError, ValueError) as error:
            raise ConnectionFailed(f"{self._said_by} leads to {self.uri}, which does not answer ({error}).") from None


def _found(entry: os.DirEntry[str]) -> tuple[os.stat_result, bool]:
    """What an entry of a folder leads to, and whether that is a file. Who reads one that leads nowhere is told."""
    try:
        found = entry.stat()
    except OSError:  # a link to nothing, to itself, or into a folder that is closed to us; or removed meanwhile
        return entry.stat(follow_symlinks=False), True
    return found, stat.S_ISREG(found.st_mode)


def _is_lost_link(path: Path, file: File) -> bool:
    """Whether a file that is not there was listed as the link that it is, and not as what the link led to."""
    try:
        return _stamp(path.lstat()) == file.stamp
    except FileNotFoundError:
        return False


def _stamp(found: os.stat_result) -> str:
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _busy(file: File) -> TableBusy:
    return TableBusy(f'"{file.path}" is being written. It is left for the next refresh.')
