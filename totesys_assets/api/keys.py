"""Keys of callers, and how often each may call.

Belongs here: making and knowing keys, and counting calls. Does not belong here: where hashes are kept (settings.py).
"""

from __future__ import annotations

import hmac
import math
import secrets
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from threading import Lock
from typing import Annotated

from fastapi import Header, HTTPException

# A caller that was quiet may ask this often at once, then this often a second.
CALLS, CALLS_PER_SECOND = 60, 10.0
_NOBODY = ""


def new_key() -> str:
    """A key that cannot be guessed: 32 random bytes. So its hash needs neither salt nor many rounds."""
    return f"totesys_{secrets.token_urlsafe(32)}"


def hash_of(key: str) -> str:
    """What is kept of a key."""
    return sha256(key.encode(errors="surrogateescape")).hexdigest()


class Budget:
    """A token bucket for each caller."""

    def __init__(
        self, calls: int = CALLS, per_second: float = CALLS_PER_SECOND, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._calls, self._per_second, self._clock = calls, per_second, clock
        self._left: dict[str, tuple[float, float]] = {}
        self._lock = Lock()

    def wait(self, caller: str) -> float:
        """Count a call. Returns 0, or after how many seconds ``caller`` may call again."""
        with self._lock:
            now = self._clock()
            left, then = self._left.get(caller, (float(self._calls), now))
            left = min(float(self._calls), left + (now - then) * self._per_second)
            is_allowed = left >= 1
            self._left[caller] = (left - 1 if is_allowed else left, now)
        return 0.0 if is_allowed else (1 - left) / self._per_second


class Door:
    """Lets callers in: with one of the keys that have these ``hashes``, or anybody where there is none."""

    def __init__(self, hashes: Sequence[str], budget: Budget) -> None:
        self._hashes, self._budget = tuple(hashes), budget

    def open(self, authorization: Annotated[str, Header(description="Bearer and a key")] = "") -> None:
        """Raise HTTPException for a caller without a key, or with too many calls."""
        caller = self._caller(authorization) if self._hashes else _NOBODY
        if wait := self._budget.wait(caller):
            seconds = str(math.ceil(wait))
            raise HTTPException(429, f"Too many calls. Try again in {seconds} s.", {"Retry-After": seconds})

    def _caller(self, authorization: str) -> str:
        scheme, _, key = authorization.partition(" ")
        presented = hash_of(key.strip())
        known = [hmac.compare_digest(presented, each) for each in self._hashes]  # all of them: the time tells nothing
        if scheme.lower() != "bearer" or not any(known):
            raise HTTPException(401, "A key is needed: Authorization: Bearer KEY.", {"WWW-Authenticate": "Bearer"})
        return presented
