"""deploy/small: what Compose makes of its file, and what the real Caddy lets through."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from totesys_assets_tests.deploy.conftest import PROJECT, tool
from totesys_assets_tests.deploy.servers import await_true, free_ports
from totesys_assets_tests.deploy.test_compose import FILLED, compose

SMALL = PROJECT / "deploy" / "small"
SETTINGS = FILLED | {"UI_HOST": "totesys.example.com", "LAKE_URI": "s3://a-bucket/lake", "TOTESYS_CONF": "/somewhere"}
UIS = {"webserver", "viewer", "dashboard"}
OPERATOR, VIEWER = ("ann", "correct horse battery"), ("vic", "staple of the horse")


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """Both files, as Compose takes them together."""
    read = compose("--file", str(SMALL / "compose.yaml"), "config", "--format", "json", env=SETTINGS)
    assert read.returncode == 0, read.stderr
    found: dict[str, Any] = json.loads(read.stdout)
    return found


def test_only_the_proxy_can_be_reached_and_only_by_tls_and_what_leads_there(whole: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in whole["services"].items() if "ports" in service}
    assert set(published) == {"caddy"}
    assert [(port["published"], port["protocol"]) for port in published["caddy"]] == [("80", "tcp"), ("443", "tcp")]


def test_the_uis_reach_neither_the_internet_nor_the_machine_and_the_proxy_no_database(whole: dict[str, Any]) -> None:
    services, networks = whole["services"], whole["networks"]
    for name in UIS:
        assert set(services[name]["networks"]) == {"data", "front"}, name
    assert set(services["caddy"]["networks"]) == {"front", "edge"}
    assert {name for name, network in networks.items() if network.get("internal")} >= {"data", "front"}
    reached = {name for name, service in services.items() if "edge" in service["networks"]}
    assert reached == {"caddy"}


def test_the_proxy_is_hardened_as_all_others_are(whole: dict[str, Any]) -> None:
    caddy, other = whole["services"]["caddy"], whole["services"]["viewer"]
    for key in ("restart", "init", "read_only", "cap_drop", "security_opt", "logging"):
        assert caddy[key] == other[key], key
    assert set(caddy["deploy"]["resources"]["limits"]) == set(other["deploy"]["resources"]["limits"])
    assert caddy["cap_add"] == ["NET_BIND_SERVICE"]
    assert caddy["environment"] == {"UI_HOST": "totesys.example.com"}
    assert re.fullmatch(r"docker\.io/library/caddy:2\.\d+\.\d+@sha256:[0-9a-f]{64}", caddy["image"])


def test_links_lead_to_the_hosts_that_people_use(whole: dict[str, Any]) -> None:
    links = {
        name: service["environment"]["TOTESYS_UI_URL"]
        for name, service in whole["services"].items()
        if "TOTESYS_UI_URL" in (service.get("environment") or {})
    }
    ui = "https://totesys.example.com"
    assert links == {
        "code-server": ui,
        "daemon": ui,
        "webserver": ui,
        "provision": links["provision"],
    } | dict.fromkeys(["viewer", "dashboard"], "https://view.totesys.example.com")


@pytest.mark.parametrize("missing", ["UI_HOST", "LAKE_URI"])
def test_it_does_not_start_without_a_host_or_a_lake_in_a_bucket(missing: str) -> None:
    env = {name: value for name, value in SETTINGS.items() if name != missing}
    refused = compose("--file", str(SMALL / "compose.yaml"), "config", "--quiet", env=env)
    assert refused.returncode != 0
    assert missing in refused.stderr


def test_every_setting_that_is_read_is_in_the_example() -> None:
    example = (SMALL / "settings.env.example").read_text(encoding="utf-8")
    known = set(re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE))
    scripts = "".join((SMALL / name).read_text(encoding="utf-8") for name in ("manage.sh", "backups.sh"))
    read = set(re.findall(r"\(setting ([A-Z_]+)\)", scripts))
    # What Terraform sets beside the settings.
    assert read - known == {"TOTESYS_ALERT_TOPIC", "SETTINGS_PARAMETER", "HEARTBEAT_NAMESPACE"}


@pytest.mark.parametrize("name", ["manage.sh", "backups.sh"])
def test_shellcheck_finds_nothing(name: str) -> None:
    found = subprocess.run(
        [tool("shellcheck"), "--external-sources", name],
        cwd=SMALL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in (SMALL / "systemd").iterdir():
        text = unit.read_text(encoding="utf-8").replace("@ROOT@", str(PROJECT))
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    units = sorted(str(path) for path in tmp_path.iterdir())
    assert len(units) == 4
    found = subprocess.run(
        [tool("systemd-analyze"), "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    # Docker's own unit is not on every machine that runs tests.
    said = [line for line in found.stderr.splitlines() if str(tmp_path) in line]
    assert (said, found.returncode) == ([], 0)


class Proxied:
    """The real Caddy with the shipped Caddyfile, on ports of its own, before a real webserver."""

    def __init__(self, folder: Path) -> None:
        self.port, plain, check, self.upstream = free_ports(4)
        (folder / "logins").mkdir()
        for kind, (name, password) in {"operators": OPERATOR, "viewers": VIEWER}.items():
            command = [tool("caddy"), "hash-password", "--algorithm", "bcrypt"]
            hashed = subprocess.run(command, input=password + "\n", capture_output=True, text=True, check=True).stdout
            (folder / "logins" / kind).write_text(f"{name} {hashed.strip()}\n", encoding="utf-8")
        (folder / "Caddyfile").write_text((SMALL / "Caddyfile").read_text(encoding="utf-8"), encoding="utf-8")
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "UI_HOST": "localhost"}
        adapted = self._caddy(folder, "adapt", "--config", "Caddyfile")
        assert adapted.returncode == 0, adapted.stderr
        # The names of the services, the ports, and the authority are another here. Everything else is as it is shipped.
        text = re.sub(r'"dial":"\w+:\d+"', f'"dial":"127.0.0.1:{self.upstream}"', adapted.stdout)
        text = text.replace('":443"', f'":{self.port}"').replace("127.0.0.1:2015", f"127.0.0.1:{check}")
        config = json.loads(text)
        config["apps"]["http"] |= {"http_port": plain, "https_port": self.port}
        config["apps"]["pki"] = {"certificate_authorities": {"local": {"install_trust": False}}}
        (folder / "caddy.json").write_text(json.dumps(config), encoding="utf-8")
        self.check, self.plain = check, plain
        self._log = (folder / "caddy.log").open("wb")
        self._process = subprocess.Popen(
            [tool("caddy"), "run", "--config", "caddy.json"],
            cwd=folder,
            env=self.environment,
            stdout=self._log,
            stderr=self._log,
        )
        await_true(lambda: self._tries(), f"Caddy answers; its log is {folder / 'caddy.log'}")

    def _caddy(self, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        command = [tool("caddy"), *words]
        return subprocess.run(
            command, cwd=folder, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )

    def _tries(self) -> bool:
        with suppress(OSError, ssl.SSLError):
            self.ask("GET", "/", host="view.localhost")
            return True
        return False

    def connect(self, host: str) -> ssl.SSLSocket:
        """A TLS connection for a host name; who signed its certificate does not matter here."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        plain = socket.create_connection(("127.0.0.1", self.port), 20)
        try:
            return context.wrap_socket(plain, server_hostname=host)
        except OSError:
            plain.close()
            raise

    def ask(
        self,
        method: str,
        path: str,
        *,
        host: str = "localhost",
        login: tuple[str, str] | None = None,
        origin: str | None = None,
        body: str | None = None,
        more: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers in lower case, and body of an answer."""
        headers = {"Host": host, **(more or {})}
        if login:
            headers["Authorization"] = "Basic " + base64.b64encode(":".join(login).encode()).decode()
        if origin:
            headers["Origin"] = origin
        if body:
            headers["Content-Type"] = "application/json"
        with closing(http.client.HTTPConnection(host, timeout=30)) as connection:
            connection.sock = self.connect(host)
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read().decode(errors="replace")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """Caddy, and the webserver behind it, with nothing in it."""
    folder = tmp_path_factory.mktemp("proxied")
    proxied = Proxied(folder)
    home = tmp_path_factory.mktemp("home")
    (home / "dagster.yaml").touch()
    command = [sys.executable, "-m", "totesys_assets.webserver", "-h", "127.0.0.1", "-p", str(proxied.upstream)]
    environment = os.environ | {"DAGSTER_HOME": str(home), "TOTESYS_UI_URL": "https://localhost"}
    with (
        (home / "log").open("wb") as log,
        subprocess.Popen(
            [*command, "--empty-workspace"], env=environment, stdout=log, stderr=log, cwd=home
        ) as webserver,
    ):
        try:
            await_true(
                lambda: proxied.ask("GET", "/server_info", login=OPERATOR)[0] == 200, f"it answers: {home / 'log'}"
            )
            yield proxied
        finally:
            proxied.stop()
            webserver.terminate()


UI = "https://localhost"
QUESTION = json.dumps({"query": "{ version }"})


@pytest.mark.parametrize("host", ["localhost", "view.localhost", "sales.localhost"])
@pytest.mark.parametrize("login", [None, ("ann", "wrong"), ("nobody", OPERATOR[1])])
def test_nobody_gets_in_without_a_login(proxied: Proxied, host: str, login: tuple[str, str] | None) -> None:
    status, headers, body = proxied.ask("GET", "/server_info", host=host, login=login)
    assert (status, body) == (401, "")
    assert headers["www-authenticate"].startswith("Basic ")
    assert headers["strict-transport-security"] == "max-age=31536000"


def test_an_operator_sees_all_three_and_a_viewer_all_but_the_operators_ui(proxied: Proxied) -> None:
    hosts = ("localhost", "view.localhost", "sales.localhost")
    found = {
        login[0]: [proxied.ask("GET", "/server_info", host=host, login=login)[0] for host in hosts]
        for login in (OPERATOR, VIEWER)
    }
    assert found == {"ann": [200, 200, 200], "vic": [401, 200, 200]}


def test_the_ui_may_ask_and_no_other_site_though_the_browser_sends_the_login(proxied: Proxied) -> None:
    status, headers, body = proxied.ask("POST", "/graphql", login=OPERATOR, origin=UI, body=QUESTION)
    assert (status, "version" in json.loads(body)["data"]) == (200, True)
    assert ("server" in headers, headers["x-frame-options"]) == (False, "DENY")
    for origin in ("https://elsewhere.example", "null", "http://localhost", "https://view.localhost"):
        for path in ("/graphql", "/graphql/", "/report_asset_materialization/a", "/report_asset_check/a"):
            assert proxied.ask("POST", path, login=OPERATOR, origin=origin, body=QUESTION)[0] == 403, (origin, path)
        query = "/graphql?query=mutation%7BsetNuxSeen%7D"
        assert proxied.ask("GET", query, login=OPERATOR, origin=origin)[0] == 403


@pytest.mark.parametrize(("origin", "status"), [(UI, 101), ("https://elsewhere.example", 403)])
def test_the_websocket_is_the_uis_own(proxied: Proxied, origin: str, status: int) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Protocol": "graphql-ws",
    }
    connection = proxied.connect("localhost")
    lines = ["GET /graphql HTTP/1.1", "Host: localhost", f"Origin: {origin}"]
    lines += [f"{name}: {value}" for name, value in upgrade.items()]
    lines += ["Authorization: Basic " + base64.b64encode(":".join(OPERATOR).encode()).decode(), "", ""]
    with connection:
        connection.sendall("\r\n".join(lines).encode())
        assert connection.recv(4096).split()[1] == str(status).encode()


def test_plain_http_leads_to_tls_and_the_check_answers_the_machine_alone(proxied: Proxied) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", proxied.plain, timeout=20)) as connection:
        connection.request("GET", "/runs", headers={"Host": "localhost"})
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Location", "").startswith("https://localhost")) == (308, True)
    with closing(http.client.HTTPConnection("127.0.0.1", proxied.check, timeout=20)) as check:
        check.request("GET", "/")
        assert check.getresponse().status == 200


def test_the_caddyfile_is_formatted() -> None:
    done = subprocess.run(
        [tool("caddy"), "fmt", "--diff", str(SMALL / "Caddyfile")], capture_output=True, text=True, check=False
    )
    assert [line for line in done.stdout.splitlines() if line[:1] in "+-"] == []
