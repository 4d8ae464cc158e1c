"""Connections are encrypted and the server is who it claims to be, when the URL asks for that.

The embedded PostgreSQL cannot do TLS; a proxy in front of it can, as pgbouncer or a cloud's endpoint would.
"""

from __future__ import annotations

import ipaddress
import select
import socket
import socketserver
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import psycopg.conninfo
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from totesys_assets.errors import ConnectionFailed
from totesys_assets.source.totesys import Totesys
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.conftest import PostgresServer

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104


@dataclass(frozen=True)
class Authority:
    """A certificate authority that trusts everybody who asks."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    @classmethod
    def make(cls, folder: Path) -> Authority:
        folder.mkdir()
        made = cls(folder)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {folder.name}")])
        made._write("ca", _certificate(name, name, key, key, x509.BasicConstraints(ca=True, path_length=0)), key)
        return made

    def issue(self, host: str) -> tuple[Path, Path]:
        """Certificate and key of a server by that name, or address."""
        issuer = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        signer = serialization.load_pem_private_key((self.folder / "ca.key").read_bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            shown: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            shown = x509.DNSName(host)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        certificate = _certificate(issuer.subject, name, key, signer, x509.SubjectAlternativeName([shown]))
        return self._write(host, certificate, key)

    def _write(self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
        files = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files


def _certificate(
    issuer: x509.Name,
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(extension, critical=True)
    )
    return builder.sign(signer, hashes.SHA256())


class Proxy(socketserver.ThreadingTCPServer):
    """Terminates TLS in front of a PostgreSQL server, and refuses whoever does not ask for it."""

    def __init__(self, target: int, certificate: Path, key: Path) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.target = target
        self.port = int(self.socket.getsockname()[1])
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.stopping = Event()
        self.used = 0  # connections in which the client said something after the handshake


class Connection(socketserver.BaseRequestHandler):
    """One client: asked for TLS, then passed through."""

    server: Proxy

    def handle(self) -> None:
        """Pass everything on in one thread, for an encrypted socket is not for two."""
        with suppress(OSError):
            while (code := struct.unpack("!ii", self.request.recv(8, socket.MSG_WAITALL))[1]) == GSS_REQUEST:
                self.request.sendall(b"N")
            if code != SSL_REQUEST:
                return
            self.request.sendall(b"S")
            with (
                self.server.context.wrap_socket(self.request, server_side=True) as client,
                socket.create_connection(("127.0.0.1", self.server.target)) as postgres,
            ):
                first = client.recv(65536)
                self.server.used += bool(first)
                postgres.sendall(first)
                self.pump(client, postgres)

    def pump(self, client: ssl.SSLSocket, postgres: socket.socket) -> None:
        while not self.server.stopping.is_set():
            ready = [client] if client.pending() else select.select([client, postgres], [], [], 0.1)[0]
            for source in ready:
                data = source.recv(65536)
                if not data:
                    return
                (postgres if source is client else client).sendall(data)


@contextmanager
def proxy(url: str, files: tuple[Path, Path]) -> Iterator[Proxy]:
    """A proxy in front of the URL's server, with the certificate and key in ``files``."""
    with Proxy(int(str(psycopg.conninfo.conninfo_to_dict(url)["port"])), *files) as made:
        thread = Thread(target=made.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield made
        finally:
            made.stopping.set()
            made.shutdown()
            thread.join()


# How the platform comes to its databases: the source through DuckDB, the warehouse through psycopg and DuckDB.
WAYS: dict[str, Callable[[str], AbstractContextManager[object]]] = {
    "source": lambda url: Totesys(url, allow_superuser=True).snapshot(),
    "warehouse": lambda url: Warehouse(url).connect(),
    "load": lambda url: Warehouse(url).transaction("any"),
}


@dataclass(frozen=True)
class Endpoint:
    """A PostgreSQL server behind TLS, known as localhost, and the authority that says so."""

    plain: str = field(repr=False)
    proxy: Proxy
    authority: Authority

    def url(self, **parts: object) -> str:
        """The URL that the documents recommend, some ``parts`` of it replaced (None: left out)."""
        recommended = {
            "host": "localhost",
            "port": self.proxy.port,
            "sslmode": "verify-full",
            "sslrootcert": self.authority.certificate,
        }
        changed = {name: str(value) for name, value in {**recommended, **parts}.items() if value is not None}
        return psycopg.conninfo.make_conninfo(self.plain, **changed)

    @property
    def password(self) -> str:
        return str(psycopg.conninfo.conninfo_to_dict(self.plain)["password"])


@pytest.fixture(scope="module")
def endpoint(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    url = postgres_server.database()
    authority = Authority.make(tmp_path_factory.mktemp("tls") / "trusted")
    with proxy(url, authority.issue("localhost")) as made:
        yield Endpoint(url, made, authority)


def refused(endpoint: Endpoint, way: str, url: str, reason: str) -> None:
    """The connection fails for that reason, in one sentence without the password, before anything is sent."""
    before = endpoint.proxy.used
    with pytest.raises(ConnectionFailed) as raised, WAYS[way](url):
        pass
    variable = "TOTESYS_URL" if way == "source" else "WAREHOUSE_URL"
    assert str(raised.value).startswith(f"{variable} cannot be reached: ")
    assert reason in str(raised.value)
    assert ". Check the URL and the server." in str(raised.value)
    error: BaseException | None = raised.value
    while error is not None:
        assert endpoint.password not in repr(error)
        error = error.__cause__
    assert endpoint.proxy.used == before


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_proves_who_it_is_is_talked_to_in_secret(endpoint: Endpoint, way: str) -> None:
    before = endpoint.proxy.used
    with WAYS[way](endpoint.url()):
        pass
    assert endpoint.proxy.used > before


@pytest.mark.parametrize("way", WAYS)
def test_what_the_url_leaves_out_may_stand_in_libpqs_variables(
    endpoint: Endpoint, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = endpoint.proxy.used
    url = endpoint.url(sslmode=None, sslrootcert=None)
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGSSLROOTCERT", str(endpoint.authority.certificate))
    with WAYS[way](url):
        pass
    assert endpoint.proxy.used > before
    monkeypatch.setenv("PGSSLROOTCERT", str(endpoint.authority.certificate.with_name("none.crt")))
    refused(endpoint, way, url, "none.crt")


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_another_authority_vouches_for_is_refused(endpoint: Endpoint, way: str, tmp_path: Path) -> None:
    other = Authority.make(tmp_path / "other")
    refused(endpoint, way, endpoint.url(sslrootcert=other.certificate), "certificate verify failed")


@pytest.mark.parametrize("way", WAYS)
def test_a_server_by_another_name_is_refused(endpoint: Endpoint, way: str) -> None:
    refused(endpoint, way, endpoint.url(host="127.0.0.1"), 'does not match host name "127.0.0.1"')


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_does_not_encrypt_is_refused(endpoint: Endpoint, way: str) -> None:
    port = psycopg.conninfo.conninfo_to_dict(endpoint.plain)["port"]
    refused(endpoint, way, endpoint.url(port=port), "server does not support SSL, but SSL was required")


@pytest.mark.parametrize("way", WAYS)
def test_without_the_authoritys_certificate_nothing_is_verified_and_so_nothing_connects(
    endpoint: Endpoint, way: str, tmp_path: Path
) -> None:
    refused(endpoint, way, endpoint.url(sslrootcert=tmp_path / "none.crt"), "does not exist")


@pytest.mark.parametrize("way", WAYS)
def test_the_systems_authorities_are_those_that_openssl_is_told_of(
    endpoint: Endpoint, way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = endpoint.proxy.used
    monkeypatch.setenv("SSL_CERT_FILE", str(endpoint.authority.certificate))
    with WAYS[way](endpoint.url(sslrootcert="system")):
        pass
    assert endpoint.proxy.used > before
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority.make(tmp_path / "other").certificate))
    refused(endpoint, way, endpoint.url(sslrootcert="system"), "certificate verify failed")
