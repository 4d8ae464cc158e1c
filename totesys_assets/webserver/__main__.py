"""``dagster-webserver`` with its application behind ``same_origin.SameOrigin``."""

from __future__ import annotations

import sys
from typing import Any

from dagster_webserver import cli
from starlette.types import ASGIApp

from totesys_assets.errors import SettingsError
from totesys_assets.settings import Settings
from totesys_assets.webserver.same_origin import SameOrigin


def main() -> None:
    """Serve the UI until it is told to end. Options and exit code are those of ``dagster-webserver``."""
    try:
        address = Settings.from_env().ui_url
    except SettingsError as error:
        sys.exit(str(error))
    module: Any = cli
    unguarded = module.create_app_from_workspace_process_context

    def guarded(*args: Any, **options: Any) -> ASGIApp:
        return SameOrigin(unguarded(*args, **options), address)

    module.create_app_from_workspace_process_context = guarded
    module.main()


if __name__ == "__main__":
    main()
