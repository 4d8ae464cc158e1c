"""Addresses of a bucket: delta-rs and boto3 ask the same server for the same path, whatever the environment says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from deltalake import DeltaTable

from totesys_assets import s3
from totesys_assets.lake.handles import storage_options
from totesys_assets.lake.storage import _client
from totesys_assets.source.file_store import FileStore

KEY = "a/_delta_log/_last_checkpoint"
AMAZON = "https://s3.eu-west-2.amazonaws.com"


class Asked(ThreadingHTTPServer):
    """A server, also as a proxy, that holds nothing: the addresses that it is asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.urls: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Asked

    def do_GET(self) -> None:
        host = "" if self.path.startswith("http://") else f"http://{self.headers['Host']}"
        self.server.urls.append(f"{host}{self.path}")
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Asked]:
    """A server, the proxy for all names, and a profile that wants to have names of buckets in those of hosts."""
    (tmp_path / "config").write_text("[default]\ns3 =\n  addressing_style = virtual\n", encoding="ascii")
    with Asked() as server:
        known = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-west-2"}
        own = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_ALLOW_HTTP": "true", "no_proxy": "127.0.0.1"}
        for name, value in (known | own | {"http_proxy": server.url}).items():
            monkeypatch.setenv(name, value)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _client.cache_clear()
        yield server
        _client.cache_clear()
        server.shutdown()


@pytest.mark.parametrize(
    ("server", "virtual", "expected"),
    [
        ("http://s3.example:8333", None, "http://s3.example:8333/lake"),
        ("http://s3.example:8333", "false", "http://s3.example:8333/lake"),
        ("http://s3.example:8333", "true", "http://lake.s3.example:8333"),
        ("http://lake.s3.example:8333", "ON", "http://lake.s3.example:8333"),
        ("http://lakes.example", "true", "http://lake.lakes.example"),
        ("here", None, "here/lake"),
        ("here", "true", "here/lake"),
    ],
)
def test_delta_rs_and_boto3_ask_for_the_same(
    asked: Asked, server: str, virtual: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.replace("here", asked.url))
    if virtual is not None:
        monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", virtual)
    with pytest.raises(OSError, match="404"):
        DeltaTable("s3://lake/a", storage_options=storage_options("s3://lake"))
    del asked.urls[1:]
    for client in (_client(0, "lake"), FileStore("s3://lake", "FILES_URI")._client):
        with suppress(ClientError):
            client.get_object(Bucket="lake", Key=KEY)
    assert asked.urls == [f"{expected.replace('here', asked.url)}/{KEY}"] * 3


@pytest.mark.parametrize(
    ("virtual", "expected"),
    [
        ("true", ({"aws_virtual_hosted_style_request": "true"}, AMAZON.replace("//", "//lake."))),
        ("no", ({"aws_virtual_hosted_style_request": "false"}, f"{AMAZON}/lake")),
    ],
)
def test_at_amazon_the_style_is_the_same_too(
    asked: Asked, virtual: str, expected: tuple[dict[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", virtual)
    url = s3.client("lake").generate_presigned_url("get_object", Params={"Bucket": "lake", "Key": "a"})
    assert (s3.storage_options("lake"), url.partition("/a?")[0]) == expected
    assert asked.urls == []
