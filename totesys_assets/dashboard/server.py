"""Running the dashboard: Streamlit's server in this process, with its settings.

Belongs here: what Streamlit is told. Does not belong here: what a page shows.
"""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from totesys_assets.settings import Settings

HOST, PORT = "127.0.0.1", 8501
_LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
# Answers with "ok" as soon as the server does.
HEALTH = "/_stcore/health"
_APP = Path(__file__).with_name("app.py")
# No statistics, no question for an e-mail address, no look at files that do not change, no traceback for readers.
_OPTIONS: dict[str, Any] = {
    "browser.gatherUsageStats": False,
    "client.showErrorDetails": "none",
    "client.toolbarMode": "minimal",
    "global.developmentMode": False,
    "logger.hideWelcomeMessage": True,
    "runner.magicEnabled": False,
    "server.enableStaticServing": True,
    "server.fileWatcherType": "none",
    "server.headless": True,
    "server.showEmailPrompt": False,
}
_THEME = {"baseRadius": "0.6rem", "showWidgetBorder": True}
_LIGHT = {
    "primaryColor": "#0f766e",
    "backgroundColor": "#ffffff",
    "secondaryBackgroundColor": "#f0efe9",
    "textColor": "#17232b",
    "borderColor": "#e2e0d8",
}
_DARK = {
    "primaryColor": "#35b0a3",
    "backgroundColor": "#18222b",
    "secondaryBackgroundColor": "#212d37",
    "textColor": "#e9eef0",
    "borderColor": "#2a3641",
}


def options(host: str, port: int) -> dict[str, Any]:
    """Streamlit's settings, by name."""
    themes = (("theme", _THEME), ("theme.light", _LIGHT), ("theme.dark", _DARK))
    return {
        **_OPTIONS,
        **{f"{section}.{name}": value for section, theme in themes for name, value in theme.items()},
        "server.address": host,
        # A page of another site could have its own name lead to this machine, and read what it is shown.
        "server.allowedHosts": [*dict.fromkeys((*_LOCAL_NAMES, host))] if _is_local(host) else [],
        "server.port": port,
    }


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def run(settings: Settings, url: str, *, host: str = HOST, port: int = PORT) -> None:
    """Serve the dashboard of the warehouse behind ``url`` until SIGINT or SIGTERM."""
    from streamlit import config
    from streamlit.web import bootstrap

    if settings.warehouse_reader_url is None:
        os.environ["WAREHOUSE_URL"] = url  # where the pages look for it
    for name, value in options(host, port).items():
        config.set_option(name, value)
    bootstrap.run(str(_APP), False, [], {})
