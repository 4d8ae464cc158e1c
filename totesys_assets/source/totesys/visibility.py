"""Which committed transactions a snapshot does not show yet."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from totesys_assets.source.totesys.fingerprint import CIRCLE


def hidden_by(snapshot: str, xids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Of transactions, by their ids on the circle, those that were running or had not begun in ``snapshot``.

    ``snapshot`` is the text of ``pg_current_snapshot()``. Half of the circle lies ahead of it.
    """
    first, end, listed = snapshot.split(":")
    xmin, xmax = int(first), int(end)
    ahead = (xids - xmin) % CIRCLE
    running = [int(each) % CIRCLE for each in listed.split(",") if each]
    hidden: npt.NDArray[np.bool_] = (ahead >= xmax - xmin) | np.isin(xids, running)
    return hidden & (ahead < CIRCLE // 2)


def hideable(xmin: int) -> tuple[tuple[int, int], ...]:
    """The ids on the half of the circle that begins with ``xmin``, as ranges from the least to the greatest of each.

    Only they can be hidden.
    """
    first = xmin % CIRCLE
    last = first + CIRCLE // 2 - 1
    return ((first, last),) if last < CIRCLE else ((first, CIRCLE - 1), (0, last - CIRCLE))
