"""Where the files of a Delta table lie, a folder of this machine or one in a bucket: writing and removing whole files.

Belongs here: what is done to files without delta-rs. Does not belong here: what is in them (written.py).

Files for a bucket are written into a folder of this machine, and sent when they are complete. delta-rs has streams into
a bucket, but they keep Python's lock while they wait for the network. A write by delta-rs in another thread needs that
lock, and holds up the network: neither would ever end. So it is with a table's history (history.py),
with lists of files, and where it asks how large one is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property, lru_cache
from pathlib import Path
from queue import Empty, SimpleQueue
from shutil import rmtree
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, PyFileSystem, SubTreeFileSystem

from totesys_assets import s3, spill
from totesys_assets.engine import one_line
from totesys_assets.lake.files import folder_of
from totesys_assets.lake.handles import storage_options

if TYPE_CHECKING:
    from deltalake import DeltaTable

# Files that are sent at once.
_AT_ONCE = 4
# A bucket that does not answer is given up after some minutes, as delta-rs does.
_CONNECT_SECONDS, _READ_SECONDS, _ATTEMPTS = 5, 60, 4
# S3 takes what is smaller in one request: the files are.
_ONE_REQUEST_BYTES = 256_000_000
# What all writers of a process may have on this machine before they send files that could still grow.
_ON_DISK_BYTES = 1_000_000_000
# The files of this machine that are to be sent, each with the process that writes it.
_unsent = dict[Path, int]()
# How a bucket is to encrypt files: what delta-rs reads, and what boto3 calls it.
_ENCRYPTION = {"AWS_SERVER_SIDE_ENCRYPTION": "ServerSideEncryption", "AWS_SSE_KMS_KEY_ID": "SSEKMSKeyId"}
# Folders of which one file, sent by boto3, was seen by delta-rs.
_seen = set[str]()


class Storage(Protocol):
    """Files below the folder of a table, by their relative paths. What writes and reads raises OSError.

    Where files wait on this machine, ``writing`` raises TemporaryFilesFailed of them.
    """

    def create(self, path: str) -> pa.NativeFile:
        """A new file, to be written and closed, then given to ``complete``."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """What fails in the block, in which files are made, written or completed, is said to be of where they lie."""
        ...

    def is_crowded(self) -> bool:
        """Whether so much waits to be sent that a writer is to complete what it has."""
        ...

    def complete(self, paths: Sequence[str]) -> None:
        """Put files that were written where readers find them."""
        ...

    def open(self, path: str) -> pa.NativeFile:
        """A file, to be read. Raises FileNotFoundError where it is not there."""
        ...

    def files(self, folder: str) -> dict[str, int]:
        """The files below a folder, and how large each is. One that is not there has none."""
        ...

    def remove(self, paths: Sequence[str]) -> None:
        """Remove files, complete or not. What cannot be removed stays."""
        ...

    def remove_folder(self, folder: str) -> None:
        """Remove a folder with all that is in it."""
        ...

    def close(self) -> None:
        """Forget what is not complete."""
        ...


def storage_of(table: DeltaTable) -> Storage:
    """Where the files of ``table`` lie."""
    folder = folder_of(table)
    return _Bucket(table.table_uri) if folder is None else _Folder(folder)


def file_system(table: DeltaTable, sizes: Mapping[str, int]) -> FileSystem:
    """The folder of ``table`` as a file system of Arrow's, to read files of these ``sizes``, by their relative paths.

    To ask a bucket for the size of a file, or to list files, delta-rs would keep Python's lock.
    """
    folder = folder_of(table)
    if folder is not None:
        return SubTreeFileSystem(folder, LocalFileSystem())
    return PyFileSystem(DeltaStorageHandler(table.table_uri, storage_options(table.table_uri), dict(sizes)))


class _Folder:
    def __init__(self, folder: str) -> None:
        self._files = SubTreeFileSystem(folder, LocalFileSystem())

    def create(self, path: str) -> pa.NativeFile:
        if "/" in path:
            self._files.create_dir(path.rpartition("/")[0])
        return self._files.open_output_stream(path)

    def writing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def is_crowded(self) -> bool:
        return False

    def complete(self, paths: Sequence[str]) -> None:
        """They are where they belong."""

    def open(self, path: str) -> pa.NativeFile:
        return self._files.open_input_file(path)

    def files(self, folder: str) -> dict[str, int]:
        infos = self._files.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True))
        return {each.path: each.size for each in infos if each.type == FileType.File}

    def remove(self, paths: Sequence[str]) -> None:
        for path in paths:
            with suppress(OSError):
                self._files.delete_file(path)

    def remove_folder(self, folder: str) -> None:
        self._files.delete_dir(folder)

    def close(self) -> None:
        """Nothing is elsewhere."""


class _Bucket:
    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self._uri, self._name, self._prefix = uri, parts.netloc, unquote(parts.path).strip("/")
        self._written: dict[str, Path] = {}  # what was not sent yet, by its path in the bucket

    def create(self, path: str) -> pa.NativeFile:
        self._written[path] = self._here / path.rpartition("/")[2]  # a name that no other has
        _unsent[self._written[path]] = os.getpid()
        return pa.OSFile(str(self._written[path]), "wb")

    def writing(self) -> AbstractContextManager[None]:
        return spill.told()

    def is_crowded(self) -> bool:
        return sum(_size(path) for path, process in [*_unsent.items()] if process == os.getpid()) > _ON_DISK_BYTES

    def complete(self, paths: Sequence[str]) -> None:
        waiting, failed = SimpleQueue[str](), list[BaseException]()
        for path in paths:
            waiting.put(path)

        def work() -> None:
            with suppress(Empty):
                while not failed:
                    path = waiting.get_nowait()
                    try:
                        self._send(path)
                    except BaseException as error:  # in a thread: raised below
                        failed.append(error)

        # Daemons: a bucket that does not answer keeps no process from ending.
        threads = [Thread(target=work, name="send", daemon=True) for _ in range(min(_AT_ONCE, len(paths)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
        if paths and self._uri not in _seen:
            self._require_seen(paths[0])
            _seen.add(self._uri)

    def open(self, path: str) -> pa.NativeFile:
        with self._answers() as client:
            try:
                content = client.get_object(Bucket=self._name, Key=self._key(path))["Body"].read()
            except client.exceptions.NoSuchKey as error:
                raise FileNotFoundError(f"{path} is not in {self._uri}") from error
        return pa.BufferReader(content)

    def remove(self, paths: Sequence[str]) -> None:
        # Also what could not be sent: a request without an answer may have succeeded. A bucket that does not answer
        # would keep each request waiting for minutes: after one, it is asked no more.
        with suppress(OSError), self._answers() as client:
            for path in paths:
                if path not in self._written:
                    client.delete_object(Bucket=self._name, Key=self._key(path))

    def files(self, folder: str) -> dict[str, int]:
        before, below = self._key(""), self._key(f"{folder}/" if folder else "")
        with self._answers() as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=below)
            found = [each for page in pages for each in page.get("Contents", ())]
        return {each["Key"].removeprefix(before): each["Size"] for each in found}

    def remove_folder(self, folder: str) -> None:
        self.remove([*self.files(folder)])

    def close(self) -> None:
        if "_here" in self.__dict__:
            for path in [each for each in [*_unsent] if each.parent == self._here]:
                _unsent.pop(path, None)
            rmtree(self._here, ignore_errors=True)

    @cached_property
    def _here(self) -> Path:
        made = Path(spill.folder())  # of which the next process removes what a killed one left
        made.mkdir()
        return made

    def _send(self, path: str) -> None:
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(multipart_threshold=_ONE_REQUEST_BYTES, use_threads=False)
        extra = {name: os.environ[variable] for variable, name in _ENCRYPTION.items() if os.environ.get(variable)}
        file = self._written.pop(path)
        with self._answers() as client:
            client.upload_file(str(file), self._name, self._key(path), ExtraArgs=extra, Config=config)
        file.unlink()
        _unsent.pop(file, None)

    def _require_seen(self, path: str) -> None:
        """Raise OSError unless delta-rs sees a file that boto3 has sent: else it would commit what is not there."""
        (found,) = DeltaStorageHandler(self._uri, storage_options(self._uri)).get_file_info([path])
        if found.type != FileType.File:
            raise OSError(
                f"{path} was sent to {s3.address_of(self._name).server or 'S3'}, and is not to be found in {self._uri} "
                "afterwards. Let AWS_ENDPOINT_URL_S3 be the address of the server, without the bucket's name in it"
            )

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path

    @contextmanager
    def _answers(self) -> Iterator[Any]:
        """A client for the bucket. What it raises is an OSError with one line."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield _client(os.getpid(), self._name)
        except (Boto3Error, BotoCoreError, ClientError, ValueError) as error:  # the last of an address that is none
            raise OSError(f"the bucket of {self._uri} refused or did not answer: {one_line(error)}") from error


def _size(path: Path) -> int:
    with suppress(OSError):  # sent meanwhile
        return path.stat().st_size
    return 0


@lru_cache(maxsize=4)
def _client(_: int, bucket: str) -> Any:
    """A client of this process; a forked one has another. It may be used in several threads."""
    return s3.client(
        bucket,
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
    )
