"""The dashboard in a browser: pages, filters in the address, news without a reload, a database that goes away."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

import psutil
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from totesys_assets.dashboard import frame, server, words
from totesys_assets_tests.conftest import Platform, PostgresServer

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.refreshed,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine: apt-get install chromium"),
]
# Of a busy machine.
SECONDS = 60
AS_OF = "As of the load at"


@dataclass
class Dashboard:
    """A dashboard that runs, and a browser."""

    address: str
    process: subprocess.Popen[bytes]
    browser: Browser
    hosts: set[str] = field(default_factory=set)

    @contextmanager
    def viewer(self, width: int = 1280) -> Iterator[Page]:
        """A page of a viewer of his own."""
        with self.browser.new_context(viewport={"width": width, "height": 900}) as context:
            yield self.page(context)

    def page(self, context: BrowserContext) -> Page:
        page = context.new_page()
        page.set_default_timeout(SECONDS * 1000)
        page.on(
            "request", lambda request: self.hosts.add(urlsplit(request.url).hostname or urlsplit(request.url).scheme)
        )
        return page

    def open(self, page: Page, path: str = "/") -> None:
        page.goto(self.address + path)
        expect(page.get_by_text(AS_OF)).to_be_visible()


@pytest.fixture
def dashboard(platform: Platform, tmp_path: Path) -> Iterator[Dashboard]:
    with socket.socket() as probe:
        probe.bind((server.HOST, 0))
        port = probe.getsockname()[1]
    address = f"http://{server.HOST}:{port}"
    command = [sys.executable, "-m", "totesys_assets.cli", "dashboard", "--port", str(port)]
    with (tmp_path / "dashboard.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            await_health(process, address, tmp_path / "dashboard.log")
            with sync_playwright() as playwright:
                # Root may not use the browser's sandbox.
                arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
                expect.set_options(timeout=SECONDS * 1000)
                yield Dashboard(address, process, browser)
                browser.close()
        finally:
            process.terminate()
            assert process.wait(20) == 0


def await_health(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(address + server.HEALTH, timeout=2):
            return
        time.sleep(0.1)
    pytest.fail(f"the dashboard did not start:\n{log.read_text()}")


def orders(page: Page) -> str:
    """What stands below "Orders"."""
    return page.get_by_test_id("stMetric").nth(1).get_by_test_id("stMetricValue").inner_text()


def test_every_page_is_drawn_filters_are_in_the_address_and_nobody_else_is_asked(dashboard: Dashboard) -> None:
    with dashboard.viewer() as page:
        dashboard.open(page)
        expect(page.get_by_text("in GBP, by the currency of the order")).to_be_visible()
        page.get_by_role("radio", name="USD").click()
        page.get_by_role("radio", name="All", exact=True).click()
        expect(page.get_by_text("in USD, by the currency of the order")).to_be_visible()
        page.wait_for_url("**/?*currency=USD*")
        page.reload()
        expect(page.get_by_text("in USD, by the currency of the order")).to_be_visible()
        expect(page.get_by_test_id("stVegaLiteChart").first).to_be_visible()
        for title, _ in frame.PAGES[1:]:
            page.get_by_role("link", name=title, exact=True).click()
            page.wait_for_url(f"**/{title.lower()}?*")
            expect(page.get_by_text(AS_OF)).to_be_visible()
            expect(page.get_by_role("radio", name="USD")).to_have_attribute("aria-checked", "true")
            expect(page.get_by_test_id("stException")).to_have_count(0)
            expect(page.get_by_test_id("stAlert")).to_have_count(0)
        page.get_by_role("link", name="Overview", exact=True).click()
        page.get_by_test_id("stDataFrame").first.hover()
        expect(page.get_by_role("button", name="Search").first).to_be_visible()
        expect(page.get_by_role("button", name="Download as CSV")).to_have_count(0)
    with dashboard.viewer(width=390) as page:
        dashboard.open(page, "/sales")
        expect(page.locator(".st-key-map-frame").get_by_test_id("stVegaLiteChart")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.get_by_test_id("stPopover").first.get_by_role("button").click()
        expect(page.get_by_text("FROM mart_sales_day AS sales")).to_be_visible()
        charts = page.locator('div:has(> [data-testid="stElementToolbar"]):has([data-testid="stVegaLiteChart"])')
        assert charts.count() == 3
        for chart in charts.all():  # its tools would lie on the words above it
            expect(chart.get_by_test_id("stElementToolbar")).to_be_hidden()
    assert dashboard.hosts == {server.HOST}


# What Markdown, and what is made of it later, would show as something else.
HOSTILE = (
    "www.a.example http://b.example me@c.example ![i](http://d.example/x.png) [l](http://e.example) "
    "**bold** _leaning_ `code` :smile: :material/home: :red[red] $x^2$ -> <b>"
)


def test_texts_of_totesys_are_shown_as_they_are(dashboard: Dashboard, platform: Platform) -> None:
    platform.sql(f"UPDATE address SET country = '{HOSTILE}', city = '{HOSTILE}'")
    platform.sql(f"UPDATE department SET department_name = '{HOSTILE}'")
    platform.sql(f"UPDATE counterparty SET counterparty_legal_name = '{HOSTILE}'")
    platform.sql("UPDATE currency SET currency_code = '*a*' WHERE currency_code <> 'GBP'")
    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(platform.refresh).result()
    made = "a:not([data-testid='stPageLink-NavLink']), em, code, img, h1, b, .katex, [data-testid='stIconMaterial']"
    with dashboard.viewer() as page:
        for path in ("/", "/sales", "/money", "/history"):
            dashboard.open(page, f"{path}?period=All&currency={quote(words.plain('*a*'))}")
            expect(page.get_by_text("There are no rates for *a*")).to_be_visible()
            for kind in ("stMarkdownContainer", "stMetricValue"):
                for shown in page.get_by_test_id(kind).all():
                    assert shown.locator(made).count() == 0, shown.inner_html()
        dashboard.open(page, "/sales?period=All")
        told = page.get_by_text("Not on the map").inner_text().replace("\u2060", "")
        assert told.endswith(f": {HOSTILE}")
        assert "example" not in " ".join(dashboard.hosts)


@pytest.mark.thorough
def test_an_address_that_writes_a_page_otherwise_leads_to_it_with_its_filters(dashboard: Dashboard) -> None:
    for path, shown in (("/Sales", "/sales"), ("/MONEY", "/money"), ("/overview", "/"), ("/Overview", "/")):
        with dashboard.viewer() as page:
            dashboard.open(page, f"{path}?currency=USD")
            page.wait_for_url(f"{dashboard.address}{shown}?currency=USD")
            expect(page.get_by_role("radio", name="USD")).to_have_attribute("aria-checked", "true")
            expect(page.get_by_text("Page not found")).to_have_count(0)
            for title, _ in frame.PAGES:
                expect(page.get_by_role("link", name=title)).to_have_count(1)
    with dashboard.viewer() as page:
        dashboard.open(page, "/nothing")
        expect(page.get_by_text("Page not found")).to_be_visible()


def test_an_open_page_shows_what_is_new_and_survives_a_restart_of_the_database(
    dashboard: Dashboard, platform: Platform, postgres_server: PostgresServer
) -> None:
    with dashboard.viewer() as page:
        dashboard.open(page, "/?period=All")
        assert orders(page) == "1"
        platform.sql(
            "INSERT INTO sales_order SELECT 2, now(), now(), design_id, staff_id, counterparty_id, 10, 5, 1, "
            "agreed_payment_date, agreed_delivery_date, agreed_delivery_location_id FROM sales_order"
        )
        with ThreadPoolExecutor(1) as elsewhere:  # this thread has Playwright's event loop
            elsewhere.submit(platform.refresh).result()
        expect(page.get_by_test_id("stMetric").nth(1)).to_contain_text("2")
        with postgres_server.away():
            expect(page.get_by_text("The database is away")).to_be_visible()
            assert orders(page) == "2"  # what was known stays
        expect(page.get_by_text("The database is away")).to_have_count(0)
        page.get_by_role("radio", name="EUR").click()
        expect(page.get_by_text("in EUR, by the currency of the order")).to_be_visible()
        expect(page.get_by_test_id("stAlert")).to_have_count(0)


@pytest.mark.thorough
def test_ten_viewers_at_once_take_less_memory_than_a_task_has(dashboard: Dashboard) -> None:
    with dashboard.viewer() as page:
        dashboard.open(page)
        one = psutil.Process(dashboard.process.pid).memory_info().rss
        context = page.context
        for number in range(9):
            dashboard.open(dashboard.page(context), f"/{'sales' if number % 2 else ''}")
        ten = psutil.Process(dashboard.process.pid).memory_info().rss
    print(f"one viewer: {one / 2**20:.0f} MB, ten: {ten / 2**20:.0f} MB")
    assert ten < 512 * 2**20
