"""What the commits to a table say of themselves.

Belongs here: reading them from its log. Does not belong here: what is said (capture/beside.py), and saying it
(commit.py).

Not by delta-rs, which keeps Python's lock while it waits for a bucket: a write in another thread may need that lock,
and hold up the network (storage.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from totesys_assets.engine import one_line
from totesys_assets.errors import LakeFailed
from totesys_assets.lake.storage import storage_of

if TYPE_CHECKING:
    from deltalake import DeltaTable

Commit = dict[str, Any]
_INFO = "commitInfo"


def commits(table: DeltaTable) -> Iterator[Commit]:
    """The commits up to the one that ``table`` shows, the newest first, as far back as the log goes.

    Each is read when it is asked for; one that says nothing is empty. Raises LakeFailed.
    """
    storage = storage_of(table)
    for version in range(table.version(), -1, -1):
        try:
            with storage.open(f"_delta_log/{version:020}.json") as file:
                lines = file.read().decode().splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            raise LakeFailed(f"The log of {table.table_uri} cannot be read: {one_line(error)}.") from error
        said = (json.loads(line).get(_INFO) for line in lines if _INFO in line)
        yield next((each for each in said if each is not None), {})
