"""Stand-ins for AWS on this machine: an S3 server, moto for the rest, and a proxy that sees every request."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import botocore.exceptions

REGION = "eu-west-2"
KEY, SECRET = "AKIATESTONLY", "only-for-tests-s3cret"
_START_SECONDS = 90


def free_ports(number: int) -> list[int]:
    """Ports that nothing listens on; each, and it plus 10,000, for SeaweedFS's gRPC."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def await_true(happened: Callable[[], object], what: str, seconds: float = _START_SECONDS) -> None:
    """Wait until ``happened`` is true."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"{what} within {seconds} s"
        time.sleep(0.1)


def s3_environment(url: str, *, key: str = KEY, secret: str = SECRET) -> dict[str, str]:
    """What the AWS libraries read, boto3 and delta-rs alike."""
    return {
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_ALLOW_HTTP": "true",  # delta-rs refuses it otherwise, as it should
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,  # boto3 reads no other
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def client(service: str, url: str) -> Any:
    """A boto3 client of a stand-in."""
    session = boto3.session.Session(KEY, SECRET, region_name=REGION)
    return session.client(service, endpoint_url=url)


class SeaweedFS:
    """A real S3 server over a folder: it checks signatures, honours conditions, and keeps what it has."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = free_ports(8)
        self.url = f"http://127.0.0.1:{self._ports[6]}"
        (folder / "data").mkdir(parents=True)
        identity = {
            "name": "platform",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "identities.json").write_text(json.dumps({"identities": [identity]}), encoding="ascii")

    def start(self) -> None:
        """Start it, again after ``kill``, and wait until it stores and reads."""
        names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
        ports = [f"-{name}={port}" for name, port in zip((*names, "s3.port", "s3.port.grpc"), self._ports, strict=True)]
        # What else it would listen on, and whom it would call, is switched off.
        off = ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    "server",
                    f"-dir={self._folder / 'data'}",
                    "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1",
                    "-filer",
                    "-s3",
                    f"-s3.config={self._folder / 'identities.json'}",
                    "-volume.max=1000",  # every bucket takes seven
                    "-master.volumeSizeLimitMB=64",
                    *ports,
                    *off,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        await_true(self._stores, f"SeaweedFS did not start; its log is {self._folder / 'log'}")

    def _stores(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"SeaweedFS ended; its log is {self._folder / 'log'}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self._ports[6])):
                return False
        try:
            if "probe" not in [bucket["Name"] for bucket in self.client.list_buckets()["Buckets"]]:
                self.client.create_bucket(Bucket="probe")
            else:  # after a restart, what is there can be read only when the volumes have reported
                self.client.get_object(Bucket="probe", Key="probe")
            self.client.put_object(Bucket="probe", Key="probe", Body=b"probe")
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError):
            return False
        return True

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def client(self) -> Any:
        """A client of it."""
        return client("s3", self.url)


class Moto:
    """moto's server: Secrets Manager, SNS, SQS and the rest of AWS, in memory."""

    def __init__(self, program: str, folder: Path) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        with (folder / "moto.log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, "-H", "127.0.0.1", "-p", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        await_true(self._answers, "moto did not start")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def topic(self, name: str) -> tuple[str, Callable[[], list[dict[str, str]]]]:
        """ARN of a new SNS topic, and how to receive what has been published to it, through a queue."""
        sns, sqs = client("sns", self.url), client("sqs", self.url)
        arn = str(sns.create_topic(Name=name)["TopicArn"])
        queue = sqs.create_queue(QueueName=name)["QueueUrl"]
        queue_arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=queue_arn)

        def receive() -> list[dict[str, str]]:
            found = []
            while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
                for message in messages:
                    found.append(json.loads(message["Body"]))
                    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
            return found

        return arn, receive


class TaskRole:
    """Where a container of ECS gets the credentials of its task's role: no key is in its environment."""

    def __init__(self) -> None:
        # No token: SeaweedFS would look for who gave it out.
        credentials = {"AccessKeyId": KEY, "SecretAccessKey": SECRET, "Token": "", "Expiration": "2100-01-01T00:00:00Z"}
        answer = json.dumps(credentials).encode()

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/role"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True)
class Request:
    """A request as it came: ``kind`` is GET, PUT, LIST …"""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str] = field(repr=False)

    @property
    def kind(self) -> str:
        """What S3 calls it."""
        return "LIST" if self.method == "GET" and "list-type" in self.query else self.method

    @property
    def has_checksum(self) -> bool:
        """Whether what is written comes with a checksum that S3 takes for one."""
        return any(name == "content-md5" or name.startswith("x-amz-checksum-") for name in self.headers)


class Proxy:
    """Passes requests on to ``target`` and notes them. ``before`` is called with each, and may answer in its place."""

    def __init__(self, target: str) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.before: Callable[[Request], tuple[int, bytes] | None] = lambda _: None
        host = urlsplit(target).netloc
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or each answer waits 40 ms for the head of it to be acknowledged

            def setup(self) -> None:
                super().setup()
                proxy.connections += 1
                self._onward = http.client.HTTPConnection(host, timeout=60)

            def finish(self) -> None:
                self._onward.close()
                super().finish()

            def log_message(self, *_: object) -> None:
                pass

            def _pass_on(self) -> None:
                parts = urlsplit(self.path)
                request = Request(
                    self.command,
                    parts.path,
                    parse_qs(parts.query, keep_blank_values=True),
                    {name.lower(): value for name, value in self.headers.items()},
                )
                proxy.requests.append(request)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                answer = proxy.before(request)
                if answer is None:
                    status, headers, content = self._ask(body)
                else:
                    (status, content), headers = answer, [("Content-Type", "application/xml")]
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                length = dict(headers).get("Content-Length", "0") if self.command == "HEAD" else len(content)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(content)

            def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
                try:
                    # The host stays that of the proxy: it is part of what was signed.
                    self._onward.request(self.command, self.path, body, dict(self.headers.items()))
                    with self._onward.getresponse() as found:
                        return found.status, found.getheaders(), found.read()
                except (OSError, http.client.HTTPException):
                    self._onward.close()
                    return 503, [], b""

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815 - as the base class calls them

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # who asked has gone away: delta-rs does when it has what it wants

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def count(self) -> Counter[str]:
        """Requests since this was last asked, by kind."""
        counted = Counter(request.kind for request in self.requests)
        self.requests.clear()
        return counted

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
