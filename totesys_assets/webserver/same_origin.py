"""Which requests of a browser the UI takes: those of its own pages.

The UI asks for no login. Where one stands before it, the browser sends that login's cookie with the requests of any
page that its user looks at; on one's own machine not even that is needed. So a page of somebody else's could start and
delete runs: GraphQL runs mutations also for GET, and for a POST that no browser asks about first.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PORTS = {"http": 80, "https": 443}
# They change nothing, but for GET of GraphQL.
_READING = {"GET", "HEAD", "OPTIONS"}


class Origin(NamedTuple):
    """Scheme, host and port, which together tell one site from another. Of a ``Host`` the scheme is not known."""

    scheme: str | None
    name: str
    port: int | None

    @classmethod
    def of_url(cls, url: str) -> Origin | None:
        """Of ``scheme://host:port``; None for anything else, such as ``null``."""
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS[parts.scheme]
            name = (parts.hostname or "").encode("idna").decode()  # as browsers send it: ü.example is xn--tda.example
        except (ValueError, KeyError):
            return None
        return cls(parts.scheme, name, port) if name else None

    @classmethod
    def of_host(cls, host: str) -> Origin | None:
        """Of the header ``Host``; None for one that is not a host."""
        try:
            parts = urlsplit(f"//{host}")
            port = parts.port
        except ValueError:
            return None
        is_host = parts.hostname is not None and parts.netloc == host and "@" not in host
        return cls(None, str(parts.hostname), port) if is_host else None


class SameOrigin:
    """An ASGI application that answers 403, with the reason, to what comes from another site's page.

    ``ui_url`` is the address under which people open the UI, if it is known. A name with a dot that is not in it is not
    answered at all: a site can give its own name the UI's IP address, and its pages are then of the same origin.
    Programs that are no browsers send neither ``Origin`` nor ``Sec-Fetch-Site``, and are answered.
    """

    def __init__(self, app: ASGIApp, ui_url: str | None) -> None:
        self._app = app
        self._address = ui_url
        self._ui = Origin.of_url(ui_url) if ui_url else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif (reason := self._refusal(scope)) is None:
            await self._app(scope, receive, _unframed(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            await PlainTextResponse(f"{reason}\n", status_code=403)(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host = _only(headers.getlist("host"), Origin.of_host)
        if host is None or not self._is_ours(host.name):
            return (
                "The UI is not known by this name. It answers to localhost, to IP addresses, to names without a dot "
                "and to the host of TOTESYS_UI_URL: set that to the address under which people open the UI."
            )
        if scope["type"] == "http" and scope["method"] in _READING:
            # The path as the webserver sees it: a load balancer sees it as it was sent, where /%67raphql is another.
            if scope["path"].rstrip("/").endswith("/graphql") and "text/html" not in headers.get("accept", ""):
                return "GraphQL is taken by POST: a GET can come from any page."
            return None
        if self._is_of_own_page(headers, host):
            return None
        page, address = headers.get("origin", "another site"), self._address or headers["host"]
        return f"This comes from a page of {page}. The UI is at {address}."

    def _is_ours(self, name: str) -> bool:
        if self._ui is not None and name == self._ui.name:
            return True
        return "." not in name or name.endswith(".localhost") or _is_address(name)

    def _is_of_own_page(self, headers: Headers, host: Origin) -> bool:
        origins = headers.getlist("origin")
        if not origins:
            return headers.get("sec-fetch-site", "none") in ("same-origin", "none")
        origin = _only(origins, Origin.of_url)
        if origin is None or origin == self._ui:  # the latter also behind a proxy that gives the host another name
            return origin is not None
        if self._ui is not None and host.name == self._ui.name and host.port in (None, self._ui.port):
            return False  # such as a page of the same name that came by HTTP, which anybody on the way can write
        return (origin.name, origin.port) == (host.name, host.port or _PORTS[str(origin.scheme)])


def _only(values: list[str], read: Callable[[str], Origin | None]) -> Origin | None:
    return read(values[0]) if len(values) == 1 else None


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _unframed(send: Send) -> Send:
    """No page of another site may show the UI in a frame and have its user click there."""

    async def with_header(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["X-Frame-Options"] = "DENY"
        await send(message)

    return with_header
