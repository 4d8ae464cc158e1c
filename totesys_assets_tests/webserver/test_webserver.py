"""Dagster's webserver, as it runs: what another site's page in a real browser can do, and what a proxy passes on."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 60  # of a busy machine
UI = "https://ui.totesys.example.com"
LIMIT = 'mutation {{ setConcurrencyLimit(concurrencyKey: "{key}", limit: 3) }}'
LIMITS = "{ instance { concurrencyLimits { concurrencyKey } } }"
ASSETS = "{ assetsOrError { ... on AssetConnection { nodes { key { path } } } } }"
# Ways of a page to have something done elsewhere without being asked first. Each sets the limit that is named after it.
ATTACKS = """
const ui = %(ui)r, run = (key) => %(limit)r.replace("KEY", key);
const address = (key) => ui + "/graphql?query=" + encodeURIComponent(run(key));
const other = (path) => ui + "/%%67raph" + path;
async function attack() {
  const done = [];
  new Image().src = address("image");
  new Image().src = other("ql?query=" + encodeURIComponent(run("encoded")));
  done.push(fetch(address("get"), { mode: "no-cors", credentials: "include" }));
  done.push(fetch(address("html"), { mode: "no-cors", headers: { accept: "text/html" } }));
  done.push(fetch(address("post"), { mode: "no-cors", method: "POST" }));
  done.push(fetch(ui + "/graphql", { mode: "no-cors", method: "POST", body: JSON.stringify({ query: run("plain") }),
    headers: { "content-type": "text/plain;application/json" } }));
  done.push(fetch(ui + "/report_asset_materialization/attacked", { mode: "no-cors", method: "POST" }));
  navigator.sendBeacon(address("beacon"));
  for (const [name, target] of [["form", "framed"], ["opened", "_blank"]]) {
    const form = Object.assign(document.createElement("form"), { method: "POST", action: address(name), target });
    document.body.append(form); form.submit();
  }
  const socket = new WebSocket(ui.replace("http", "ws") + "/graphql", "graphql-ws");
  done.push(new Promise((resolve) => {
    socket.onopen = () => resolve("open"); socket.onclose = () => resolve("closed");
  }));
  const outcome = await Promise.allSettled(done);
  document.title = "done " + outcome.at(-1).value;
}
addEventListener("load", attack);
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(*options: str, folder: Path) -> Iterator[str]:
    """The address of a webserver without any code."""
    port = free_port()
    command = [sys.executable, "-m", "totesys_assets.webserver", "--empty-workspace", "-p", str(port), *options]
    environment = {**os.environ, "DAGSTER_HOME": str(folder), "DAGSTER_DISABLE_TELEMETRY": "yes"}
    with (folder / "log").open("wb") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as it:
        try:
            deadline = time.monotonic() + SECONDS
            while True:
                assert it.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, "the webserver does not answer"
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5):
                    break
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            it.terminate()
            it.wait(20)


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a webserver which people open under another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOTESYS_UI_URL", UI)
        with serving(folder=tmp_path_factory.mktemp("webserver")) as address:
            yield address


def ask(ui: str, query: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Status and text of an answer to GraphQL by POST."""
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"{ui}/graphql", body, {"content-type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def limits(ui: str) -> set[str]:
    """Keys of the limits that were set."""
    status, text = ask(ui, LIMITS)
    assert status == 200
    return {each["concurrencyKey"] for each in json.loads(text)["data"]["instance"]["concurrencyLimits"]}


def test_a_load_balancer_passes_on_what_its_users_page_sends(ui: str) -> None:
    """It keeps the host that was asked for. Its own rules see the path as it was sent, and the host."""
    behind = {"host": UI.removeprefix("https://")}
    assert ask(ui, LIMIT.format(key="own"), behind | {"origin": UI}) == (
        200,
        '{"data":{"setConcurrencyLimit":true}}',
    )
    status, text = ask(ui, LIMIT.format(key="foreign"), behind | {"origin": "https://evil.example"})
    assert (status, "https://evil.example" in text) == (403, True)
    assert ask(ui, LIMITS, {"host": "rebound.example"})[0] == 403
    for path in ("graphql", "%67raphql", "graphql/", "./graphql", "/graphql"):
        request = urllib.request.Request(f"{ui}/{path}?query={quote(LIMIT.format(key='get'))}", headers=behind)
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=SECONDS) as answer:
            assert "<!doctype html>" in answer.read().decode().lower(), path  # the UI, for a path that nobody knows
    assert limits(ui) & {"own", "foreign", "get"} == {"own"}


# Says what would be started first, in place of starting it.
DEV = """
import sys
from dagster._cli import dev
from totesys_assets.dagster_internals.dev import main
dev.open_ipc_subprocess = lambda parts, **_: sys.exit(print(*parts))
main()
"""


def test_the_ui_of_one_s_own_machine_is_the_guarded_one(tmp_path: Path) -> None:
    """Dagster names its webserver in a list of words: where that is another word, it would start without the guard."""
    begun = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DEV, "totesys_assets.webserver", "--empty-workspace"],
        env={**os.environ, "DAGSTER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    assert " -m totesys_assets.webserver " in begun.stdout.splitlines()[-1]


@contextmanager
def site(page: str) -> Iterator[str]:
    """Another site with one page; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # root may not use the browser's sandbox
        with playwright.chromium.launch(executable_path=CHROMIUM, args=arguments) as browser:
            page = browser.new_page()
            page.set_default_timeout(SECONDS * 1000)
            yield page


def test_no_page_of_another_site_does_anything_in_a_real_browser(ui: str, page: Page) -> None:
    script = ATTACKS % {"ui": ui, "limit": LIMIT.format(key="KEY")}
    framed = f'<iframe name=framed></iframe><iframe id=ui src="{ui}/runs"></iframe>'
    with site(f"<!doctype html><title>evil</title><body>{framed}<script>{script}</script>") as evil:
        page.goto(evil)
        page.wait_for_function("document.title.startsWith('done')", timeout=SECONDS * 1000)
        assert page.title() == "done closed"  # the websocket
        page.wait_for_timeout(1000)  # what the page could not wait for: images, forms, the beacon
        # The browser shows an empty page in the place of the UI.
        assert page.frame_locator("#ui").locator("#root").count() == 0
    assert limits(ui) <= {"own"}
    assert ask(ui, ASSETS) == (200, '{"data":{"assetsOrError":{"nodes":[]}}}')


def test_the_ui_itself_works_in_a_real_browser(ui: str, page: Page) -> None:
    refused: list[str] = []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status == 403 else None)
    sockets: list[str] = []
    page.on("websocket", lambda each: sockets.append(each.url))
    page.goto(f"{ui}/runs")
    expect(page.get_by_text("No runs").first).to_be_visible(timeout=SECONDS * 1000)
    assert sockets
    assert refused == []
