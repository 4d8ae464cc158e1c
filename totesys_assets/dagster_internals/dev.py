"""``dagster dev`` with another webserver: ``python -m totesys_assets.dagster_internals.dev MODULE -w …``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from dagster._cli import dev

_DAGSTERS = "dagster_webserver"


def main() -> None:
    """Run ``dagster dev`` until it is told to end. The module of the first argument takes the webserver's place."""
    webserver = sys.argv.pop(1)
    module: Any = dev
    start = module.open_ipc_subprocess

    def started(parts: Sequence[str], **options: Any) -> Any:
        return start([webserver if part == _DAGSTERS else part for part in parts], **options)

    module.open_ipc_subprocess = started
    module.dev_command(auto_envvar_prefix="DAGSTER_CLI_DEV")


if __name__ == "__main__":
    main()
