"""The edge of the command line: what becomes of errors.

Belongs here: the one place where an exception turns into a sentence and an exit code. Does not belong here: commands.
"""

from typing import Any

import click

from totesys_assets.errors import PlatformError
from totesys_assets.settings import SettingsError
from totesys_assets.terminal import err


class Edge(click.Group):
    """Shows errors that users can act on as one sentence, and nothing else of them."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; PlatformError and SettingsError end it with exit code 1."""
        try:
            return super().invoke(ctx)
        except (PlatformError, SettingsError) as error:
            err.print(f"[red]{type(error).__name__}[/red]: ", end="")
            err.print(str(error), markup=False)
            ctx.exit(1)
