"""What the tests of the deployment share: where its files are, and the tools that check them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from totesys_assets.commands import main
from totesys_assets_tests.deploy.servers import Moto, Proxy, SeaweedFS
from totesys_assets_tests.deploy.terraform import of_the_stack, stack, state

__all__ = ["of_the_stack", "stack", "state"]  # fixtures

PROJECT = Path(__file__).parents[2]
# The environment of the tools, as `make check-deploy` names it.
TOOLS = os.environ.get("TOTESYS_DEPLOY_TOOLS")
# The package of Docker Compose installs a script by that name which hides the exit code; this is the program itself.
WITHIN = {"docker-compose": "lib/python*/site-packages/compose/docker-compose"}

OF_THE_SYSTEM = {"bash", "cloud-init", "jq", "systemd-analyze"}


def tool(name: str) -> str:
    """Path of a tool: of `make check-deploy`, or else on the PATH. Without one the test is skipped."""
    if TOOLS is None or name in OF_THE_SYSTEM:
        found = shutil.which(name)
    else:
        found = next((str(path) for path in Path(TOOLS).glob(WITHIN.get(name, f"bin/{name}"))), None)
        assert found, f"{name} is not in {TOOLS}: make it anew"
    if found is None:
        pytest.skip(f"{name} is not here; make check-deploy brings it")
    return found


def options_of(command: Sequence[str]) -> dict[str, Any]:
    """What a container's command gives `totesys`. Without its group, a command would keep other options of help."""
    _, name, *options = command
    group = click.Context(main, **main.context_settings)
    return main.commands[name].make_context(name, options, parent=group).params


@pytest.fixture(scope="session")
def seaweed(scratch: Path) -> Iterator[SeaweedFS]:
    """One S3 server for all tests."""
    server = SeaweedFS(tool("weed"), scratch / "seaweed")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def moto(scratch: Path) -> Iterator[Moto]:
    """One moto server for all tests."""
    server = Moto(tool("moto_server"), scratch)
    yield server
    server.stop()


@pytest.fixture
def proxy(seaweed: SeaweedFS) -> Iterator[Proxy]:
    """A way to the S3 server on which every request is seen."""
    proxy = Proxy(seaweed.url)
    yield proxy
    proxy.stop()
