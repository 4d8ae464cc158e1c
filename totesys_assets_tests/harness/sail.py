"""Sail as a stand-in for any Spark Connect server: in a process of its own, which can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

IS_INSTALLED = find_spec("pysail") is not None and find_spec("pyspark") is not None
needs_sail = pytest.mark.skipif(
    not IS_INSTALLED, reason="the packages of requirements-spark.lock are not installed: make spark"
)
_SERVE = """
import sys, threading
from pysail.spark import SparkConnectServer
server = SparkConnectServer("127.0.0.1", 0)
server.start(background=True)
print(server.listening_address[1], flush=True)
sys.stdin.read()  # until whoever started it is gone
"""


class Sail:
    """A server on a free port of this machine, with more of an ``environment``; ``remote`` is its address."""

    def __init__(self, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "TZ": "UTC", **environment},
        )
        assert self._process.stdout is not None
        self.remote = f"sc://127.0.0.1:{int(self._process.stdout.readline())}"

    def kill(self) -> None:
        """End it as a machine that is lost ends."""
        self._process.kill()
        self._process.wait(10)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
