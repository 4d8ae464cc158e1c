"""Which requests the UI takes: its own pages' and those of programs, and no other site's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from totesys_assets.webserver.same_origin import SameOrigin

pytestmark = pytest.mark.pure

UI = "https://ui.example.com"
OWN = {"host": "ui.example.com", "origin": UI}
PAGE = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def _taken(scope: Scope, _receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"taken"})


def asked(
    headers: dict[str, str] | list[tuple[str, str]],
    path: str = "/graphql",
    *,
    method: str = "POST",
    kind: str = "http",
    ui_url: str | None = UI,
) -> list[Message]:
    """What is answered to a request."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": f"{kind}.request"}

    pairs = headers.items() if isinstance(headers, dict) else headers
    scope: dict[str, Any] = {
        "type": kind,
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in pairs],
    }
    asyncio.run(SameOrigin(_taken, ui_url)(scope, receive, send))
    return sent


def is_taken(*arguments: Any, **options: Any) -> bool:
    first = asked(*arguments, **options)[0]
    if first["type"].startswith("websocket"):
        assert first["type"] in ("websocket.accept", "websocket.close")
        return bool(first["type"] == "websocket.accept")
    assert first["status"] in (200, 403)
    return bool(first["status"] == 200)


HOST = {"host": "ui.example.com"}
LOCAL = {"host": "127.0.0.1:3000"}


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("path", ["/graphql", "/report_asset_materialization/sales", "/whatever/comes"])
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (OWN, True),
        (HOST | {"origin": "https://ui.example.com:443"}, True),
        ({"host": "ui.example.com:443", "origin": UI}, True),
        (HOST | {"origin": "https://UI.example.com"}, True),
        (HOST | {"sec-fetch-site": "same-origin"}, True),
        (HOST, True),  # a program
        (LOCAL | {"origin": "http://127.0.0.1:3000"}, True),
        ({"host": "localhost:8080", "origin": "http://localhost:8080"}, True),  # through a tunnel
        ({"host": "[::1]:3000", "origin": "http://[::1]:3000"}, True),
        ({"host": "webserver:3000", "origin": UI}, True),  # a proxy that gives the host its own name
        (HOST | {"origin": "https://evil.example"}, False),
        (HOST | {"origin": "https://view.ui.example.com"}, False),
        (HOST | {"origin": "https://ui.example.com.evil.example"}, False),
        (HOST | {"origin": "https://ui.example.com@evil.example"}, False),
        (HOST | {"origin": "http://ui.example.com"}, False),  # a page that was not encrypted
        (HOST | {"origin": "http://ui.example.com:443"}, False),
        (HOST | {"origin": "https://ui.example.com:8443"}, False),
        (HOST | {"origin": "null"}, False),  # a page in a sandbox
        (HOST | {"origin": ""}, False),
        (HOST | {"origin": "https://["}, False),
        (HOST | {"origin": "https://ui.example.com:port"}, False),
        (HOST | {"origin": "chrome-extension://ui.example.com"}, False),
        ([("host", "ui.example.com"), ("origin", UI), ("origin", "https://evil.example")], False),
        (HOST | {"sec-fetch-site": "cross-site"}, False),
        (HOST | {"sec-fetch-site": "same-site"}, False),
        (LOCAL | {"origin": "http://127.0.0.1:8000"}, False),  # another program of this machine
        (LOCAL | {"origin": "http://localhost:3000"}, False),
        ({"host": "evil.example:3000", "origin": "http://evil.example:3000"}, False),  # its name, our address
        ({"host": "evil.example", "origin": UI}, False),
        ({"host": "evil.example"}, False),
        ({"origin": UI}, False),
        ({"host": "ui.example.com/x", "origin": UI}, False),
        ({"host": "user@ui.example.com", "origin": UI}, False),
        ([("host", "ui.example.com"), ("host", "evil.example"), ("origin", UI)], False),
    ],
)
def test_what_may_change_something_is_taken_from_its_own_pages_and_from_programs(
    headers: dict[str, str], path: str, kind: str, expected: bool
) -> None:
    assert is_taken(headers, path, kind=kind) is expected


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "QUERY"])
def test_a_method_that_nobody_knows_is_one_that_may_change_something(method: str) -> None:
    assert is_taken(OWN, method=method)
    assert not is_taken(HOST | {"origin": "https://evil.example"}, method=method)


@pytest.mark.parametrize("path", ["/graphql", "/graphql/", "/behind/a/prefix/graphql"])
def test_a_get_runs_no_graphql_whoever_asks(path: str) -> None:
    image = {"accept": "image/avif,image/*,*/*;q=0.8"}
    assert not is_taken(HOST | image, path, method="GET")
    assert not is_taken(OWN | image, path, method="GET")
    assert not is_taken(HOST, path, method="GET")
    assert not is_taken([("host", "ui.example.com"), ("accept", "*/*"), ("accept", "text/html")], path, method="GET")
    assert is_taken(HOST | PAGE, path, method="GET")  # the page to try GraphQL on, which runs nothing by itself


def test_a_link_of_another_site_opens_a_page_but_not_under_another_name() -> None:
    linked = PAGE | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert is_taken(HOST | linked, "/runs/1", method="GET")
    assert is_taken(
        {"host": "10.0.0.7:3000"}, "/server_info", method="GET"
    )  # the load balancer asks whether it is well
    assert not is_taken({"host": "evil.example"} | linked, "/runs/1", method="GET")


def test_an_address_that_is_not_set_leaves_the_names_of_this_machine() -> None:
    assert is_taken(LOCAL | {"origin": "http://127.0.0.1:3000"}, ui_url=None)
    assert not is_taken(OWN, ui_url=None)


@pytest.mark.parametrize(
    "ui_url", ["https://\u00fcbersicht.example.com", "HTTPS://xn--Bersicht-55a.Example.com:443/ui"]
)
def test_an_address_may_be_written_in_other_ways_than_browsers_write_it(ui_url: str) -> None:
    own = {"host": "xn--bersicht-55a.example.com", "origin": "https://xn--bersicht-55a.example.com"}
    assert is_taken(own, ui_url=ui_url)
    assert not is_taken(own | {"origin": "https://bersicht.example.com"}, ui_url=ui_url)


def test_a_refusal_says_what_to_do() -> None:
    start, body = asked({"host": "ui.other.example"})
    assert (start["status"], b"TOTESYS_UI_URL" in body["body"]) == (403, True)
    (closed,) = asked(HOST | {"origin": "https://evil.example"}, kind="websocket")
    assert closed["reason"] == "This comes from a page of https://evil.example. The UI is at https://ui.example.com."
    body = asked(LOCAL | {"origin": "https://evil.example"}, ui_url=None)[1]["body"]
    assert body == b"This comes from a page of https://evil.example. The UI is at 127.0.0.1:3000.\n"


def test_no_page_shows_the_ui_in_a_frame() -> None:
    start = asked(HOST | PAGE, "/runs", method="GET")[0]
    assert (b"x-frame-options", b"DENY") in start["headers"]


def test_what_is_no_request_is_passed_on() -> None:
    seen: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    async def never() -> Message:
        raise AssertionError

    asyncio.run(SameOrigin(app, UI)({"type": "lifespan"}, never, never))  # type: ignore[arg-type]  # neither is called
    assert seen == ["lifespan"]
