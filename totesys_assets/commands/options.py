"""What the values of options are: a day, a moment.

Does not belong here: the options themselves, which each command has.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import click

from totesys_assets.moments import parsed


class Day(click.ParamType):  # type: ignore[type-arg]  # not generic in older releases
    """A date in ISO 8601."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """The day."""
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no day: write it as 2026-01-31.", param, ctx)


class Moment(click.ParamType):  # type: ignore[type-arg]
    """An ISO 8601 date or time, in UTC unless it has an offset."""

    name = "timestamp"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The moment in UTC."""
        try:
            return parsed(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
