"""The dashboard behind a load balancer that passes on the host that was asked for, as AWS's does."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from totesys_assets.dashboard import server
from totesys_assets_tests.deploy.servers import await_true, free_ports

HOST = "sales.totesys.example.com"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a dashboard with the settings of its container; its warehouse is never asked."""
    folder: Path = tmp_path_factory.mktemp("dashboard")
    (port,) = free_ports(1)
    environment = {
        **os.environ,
        "HOME": str(folder),
        "TOTESYS_HOME": str(folder),
        "TOTESYS_UI_URL": "https://view.totesys.example.com",
        "WAREHOUSE_READER_URL": "postgresql://warehouse_reader@127.0.0.1:9/warehouse",
    }
    command = [sys.executable, "-m", "totesys_assets.cli", "dashboard", "--host", "0.0.0.0", "--port", str(port)]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as it:

        def is_well() -> bool:
            assert it.poll() is None, (folder / "log").read_text()
            with (
                suppress(urllib.error.URLError, OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}{server.HEALTH}", timeout=2),
            ):
                return True
            return False

        try:
            await_true(is_well, "the dashboard answers")
            yield port
        finally:
            it.terminate()
            assert it.wait(20) == 0


def handshake(port: int, origin: str) -> str:
    """The first line of the answer to a page of ``origin`` that opens the dashboard's websocket."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        "GET /_stcore/stream HTTP/1.1",
        f"Host: {HOST}",
        f"Origin: {origin}",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Port: 443",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    ]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection.recv(4096).decode(errors="replace").partition("\r\n")[0]


def test_a_page_of_its_own_host_gets_its_websocket(port: int) -> None:
    assert handshake(port, f"https://{HOST}").startswith("HTTP/1.1 101 ")


def test_a_page_of_another_site_does_not_with_whatever_login_the_browser_sends(port: int) -> None:
    assert handshake(port, "https://elsewhere.example.com").startswith("HTTP/1.1 403 ")
