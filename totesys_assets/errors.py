"""Errors that a user can act on: what was expected, what was found, what to do, in one sentence, told once.

Everything here is shown as it stands, in the terminal and in Dagster: no message may hold a password.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from totesys_assets.counting import counted


class PlatformError(Exception):
    """Base of all errors whose message is for the user."""


class SettingsError(ValueError):
    """An environment variable that cannot be used, in one sentence that says what to set."""


class ConnectionFailed(PlatformError):
    """A database cannot be reached, or refuses the login."""


class WrongDatabase(PlatformError):
    """The URL leads to a database that is not the one expected, or to one whose rights are missing."""


class UnsafeLogin(PlatformError):
    """A login may do so much more than it needs to that the platform does not want it."""


class NoRates(PlatformError):
    """Money is to be converted at rates that there are not: of such a currency, or of such a day."""


class SchemaDrift(PlatformError):
    """A table's columns differ from the catalogue."""


class TableBusy(PlatformError):
    """Another session has a table for itself, or did while a snapshot was taken; the next refresh tries again."""


class LogBusy(PlatformError):
    """Another session reads the slot of the log just now; the next round tries again."""


class LogGone(PlatformError):
    """The slot of the log is missing, lost, or not of this server: what it held is not to be had any more."""


class LogUnreadable(PlatformError):
    """The log has a value that has no form in UTF-8, and cannot be read past it."""


class MassDeletion(PlatformError):
    """Most of a table's rows are gone at once; taken for an accident until a user says otherwise."""


class LakeChanged(PlatformError):
    """The lake is not the one that the warehouse was loaded from, or not as new as it was then."""


class LakeFailed(PlatformError):
    """The lake cannot be read or written: its disk is full, say, or its bucket does not answer."""


class TemporaryFilesFailed(LakeFailed):
    """The folder for temporary files is full, is gone, or cannot be written."""


class ConcurrentWriters(PlatformError):
    """Other writers kept committing first."""


class StaleSnapshot(ConcurrentWriters):
    """The lake already holds what a later snapshot showed; compared with a new one, all is well again."""


def told_once(problems: Iterable[str], tables: Iterable[str]) -> list[str]:
    """The problems, each once; of those that differ only in the name of a table, one, with the number of the others.

    A wrong schema is the same sentence about every table of a source.
    """
    names = re.compile(rf"\b({'|'.join(sorted(map(re.escape, tables), key=len, reverse=True))})\b")
    alike: dict[str, list[str]] = {}
    for problem in dict.fromkeys(problems):
        alike.setdefault(names.sub("*", problem), []).append(problem)
    return [first + _and_more(len(others)) for first, *others in alike.values()]


def _and_more(tables: int) -> str:
    return f" (And {counted(tables, 'more table')}.)" if tables else ""
