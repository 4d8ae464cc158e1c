"""The lake as it was at a moment, from the versions that its bucket keeps of every object.

Belongs here: which version of each object was live then, and putting it back. Does not belong here: what is printed
(commands/rewind.py).

It is one moment for all objects, because they belong together: Delta writes files before the commit that names them,
and a refresh writes a table before the ledger that says so. What was there at a moment is what a kill at that moment
would have left, and every refresh can go on from that.

Nothing is destroyed. What is put back is a copy, which names the version that it was made of: so a second try passes
over it. What was not there is marked as removed. An object lock forbids neither.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from totesys_assets import s3
from totesys_assets.errors import LakeFailed

if TYPE_CHECKING:
    from totesys_assets.lake.tables import Lake

MADE_OF = "restored-from"  # metadata of a copy: the version that it is a copy of
_AT_ONCE = 32
# S3 gives the time of a version in whole seconds; what was written this close to a moment may lie on either side.
_CLOSE = timedelta(seconds=2)
_GIB = 1024**3


@dataclass(frozen=True)
class Version:
    """A version of an object, or the mark that it was removed (``is_there`` False)."""

    key: str
    id: str
    at: datetime
    is_there: bool
    is_newest: bool
    size: int = 0


@dataclass(frozen=True)
class Plan:
    """What makes the lake what it was at ``moment``."""

    moment: datetime
    put_back: list[Version]
    remove: list[str]
    unchanged: int
    is_quiet: bool  # nothing was written close to the moment
    quiet: datetime | None  # if something was, the last moment before of which that can be said

    @property
    def steps(self) -> int:
        """How many objects are to be changed."""
        return len(self.put_back) + len(self.remove)

    @property
    def size(self) -> int:
        """Bytes of what is to be put back."""
        return sum(each.size for each in self.put_back)


class Bucket:
    """The objects of a lake under ``uri``, which is s3://bucket/prefix."""

    def __init__(self, uri: str) -> None:
        if not uri.startswith("s3://"):
            raise LakeFailed(f"The lake at {uri} is in a folder, which keeps no versions: restore it from your backup.")
        self.uri = uri
        parts = urlsplit(uri)
        self.name, self.prefix = parts.netloc, parts.path.strip("/") + "/"

    def plan(self, moment: datetime) -> Plan:
        """What is to be changed for the lake to be what it was at ``moment``, to the second.

        Raises LakeFailed if the bucket keeps no versions from so long ago, or there was no lake then.
        """
        moment = moment.replace(microsecond=0)
        with self._answers():
            self._require_kept(moment)
            newest, then, stamps = self._listed(moment)
            put_back: list[Version] = []
            unsure: list[Version] = []  # what was replaced: perhaps by the very copy that is wanted
            for key, version in then.items():
                now = newest[key]
                if not version.is_there or now.id == version.id:
                    continue
                (unsure if now.is_there else put_back).append(version)
            if not any(each.is_there for each in then.values()):
                raise LakeFailed(f"There was no lake at {self.uri} at {moment:%Y-%m-%d %H:%M:%S} UTC.")
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                for version, is_copy in zip(unsure, pool.map(self._is_put_back, unsure), strict=True):
                    if not is_copy:
                        put_back.append(version)
        put_back.sort(key=lambda each: each.key)
        remove = sorted(key for key, now in newest.items() if now.is_there and not (key in then and then[key].is_there))
        unchanged = sum(each.is_there for each in then.values()) - len(put_back)
        is_quiet, quiet = _quiet(sorted(stamps), moment)
        return Plan(moment, put_back, remove, unchanged, is_quiet, quiet)

    def carry_out(self, plan: Plan, report: Callable[[int], None] = lambda _: None) -> None:
        """Do what ``plan`` says, files before the commits that name them; ``report`` hears how many objects are done.

        Raises LakeFailed for the first that fails: what was done by then stays, and the next plan leaves it out.
        """
        copies = [(each, not _is_log(each.key)) for each in plan.put_back]
        stages: list[tuple[Callable[[Any], None], Sequence[Any]]] = [
            (self._put_back, [each for each, is_data in copies if is_data]),
            (self._put_back, [each for each, is_data in copies if not is_data]),
            (self._remove, [key for key in plan.remove if _is_log(key)]),
            (self._remove, [key for key in plan.remove if not _is_log(key)]),
        ]
        done = 0
        for act, each in stages:
            with self._answers(), ThreadPoolExecutor(_AT_ONCE) as pool:
                try:
                    for _ in pool.map(act, each):
                        done += 1
                        report(done)
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise

    def lacking(self, lake: Lake) -> list[str]:
        """Files that a table's log names and the bucket does not have: none, if the lake is whole."""
        with self._answers():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self.prefix)
            there = {each["Key"] for page in pages for each in page.get("Contents", ())}
        named = [unquote(urlsplit(uri).path.lstrip("/")) for table in lake.tables() for uri in table.file_uris()]
        return [key for key in named if key not in there]

    def _listed(self, moment: datetime) -> tuple[dict[str, Version], dict[str, Version], set[datetime]]:
        """The newest of each object, the one of the moment if there was one, and when anything was written."""
        newest: dict[str, Version] = {}
        then: dict[str, Version] = {}
        stamps, torn = set(), set()
        for version in self._versions(self.prefix):
            stamps.add(version.at)
            if version.is_newest:
                newest[version.key] = version
            if version.at > moment:
                continue
            held = then.get(version.key)
            if held is None or version.at > held.at:
                then[version.key] = version
            elif version.at == held.at and version.is_there != held.is_there:
                torn.add(version.key)
        for key in torn:  # written and removed within a second, which a page of many does not put in order
            then[key] = next(each for each in self._versions(key, 1) if each.key == key and each.at <= moment)
        return newest, then, stamps

    def _versions(self, prefix: str, at_once: int = 1000) -> Iterator[Version]:
        """All versions below a prefix; those of one object from the newest on, its removals told apart."""
        pages = self._client.get_paginator("list_object_versions")
        for page in pages.paginate(Bucket=self.name, Prefix=prefix, PaginationConfig={"PageSize": at_once}):
            for kind, is_there in (("Versions", True), ("DeleteMarkers", False)):
                for each in page.get(kind, ()):
                    at = each["LastModified"].astimezone(UTC).replace(microsecond=0)
                    yield Version(each["Key"], each["VersionId"], at, is_there, each["IsLatest"], each.get("Size", 0))

    def _require_kept(self, moment: datetime) -> None:
        from botocore.exceptions import ClientError

        if self._client.get_bucket_versioning(Bucket=self.name).get("Status") != "Enabled":
            raise LakeFailed(f"The bucket {self.name} keeps no versions: restore the lake from your backup.")
        try:
            rules = self._client.get_bucket_lifecycle_configuration(Bucket=self.name)["Rules"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchLifecycleConfiguration":
                raise
            rules = []
        kept = [each.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays") for each in rules]
        days = min((each for each in kept if each), default=None)
        if days is not None and moment < datetime.now(UTC) - timedelta(days=days):
            raise LakeFailed(f"The bucket {self.name} keeps replaced objects for {days} days: that moment is gone.")

    def _is_put_back(self, version: Version) -> bool:
        held = self._client.head_object(Bucket=self.name, Key=version.key)["Metadata"]
        return bool(held.get(MADE_OF) == version.id)

    def _put_back(self, version: Version) -> None:
        from boto3.s3.transfer import TransferConfig

        self._client.copy(
            {"Bucket": self.name, "Key": version.key, "VersionId": version.id},
            self.name,
            version.key,
            ExtraArgs={"MetadataDirective": "REPLACE", "Metadata": {MADE_OF: version.id}},
            # In one request up to the 5 GiB that S3 allows: the copying is S3's own.
            Config=TransferConfig(multipart_threshold=5 * _GIB, multipart_chunksize=_GIB, use_threads=False),
        )

    def _remove(self, key: str) -> None:
        self._client.delete_object(Bucket=self.name, Key=key)

    @cached_property
    def _client(self) -> Any:
        retries = {"mode": "standard", "total_max_attempts": 8}
        return s3.client(self.name, max_pool_connections=_AT_ONCE, retries=retries)

    @contextmanager
    def _answers(self) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (Boto3Error, BotoCoreError, ClientError) as error:
            raise LakeFailed(f"The bucket of {self.uri} refused or did not answer ({error}).") from error


def _is_log(key: str) -> bool:
    return "/_delta_log/" in key


def _quiet(stamps: list[datetime], moment: datetime) -> tuple[bool, datetime | None]:
    """Whether nothing was written close to ``moment``; and if something was, the last quiet moment before."""
    first, last = bisect_left(stamps, moment - _CLOSE), bisect_right(stamps, moment + _CLOSE)
    if first == last:
        return True, None
    for later in range(first, 0, -1):
        before = stamps[later] - _CLOSE - timedelta(seconds=1)
        if before - stamps[later - 1] > _CLOSE:
            return False, before
    return False, None
