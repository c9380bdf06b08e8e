"""The servers that are measured: processes of their own, on a core of their own."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import psutil

_HOST: Final = "127.0.0.1"
_ROOT: Final = Path(__file__).parents[1]
_REDIS: Final = Path(sysconfig.get_path("scripts"), "redis-server")
_PATIENCE: Final = 30.0
"""How many seconds a server has to become ready."""

_POLL_INTERVAL: Final = 0.002
"""Seconds; start-up is measured to that precision."""


class ServerError(Exception):
    """A server did not start."""


@dataclass(frozen=True)
class Server:
    """A server that is ready."""

    process: psutil.Process
    port: int
    ready_after: float
    """Seconds from the start of the process to the first 200 on its readiness probe."""

    @property
    def cpu_seconds(self) -> float:
        """CPU time spent so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    @property
    def resident_bytes(self) -> int:
        """Resident memory."""
        return int(self.process.memory_info().rss)


@dataclass(frozen=True)
class Servers:
    """Starts servers on one core, or wherever the system likes."""

    core: int | None

    def daemon(self, handler: str, **environment: str) -> contextlib.AbstractContextManager[Server]:
        """Run the daemon with a handler, given as `module:attribute`, and else its defaults.

        What else is to be set, `environment` says. It logs no requests and no invocations, as what
        it is compared with does not either.
        """
        quiet = {f"AGENTWS_SERVER__{name}_LOG": "false" for name in ("ACCESS", "INVOCATION")}
        return self._running("agentws", "serve", "--handler", handler, **{**quiet, **environment})

    def bare(self) -> contextlib.AbstractContextManager[Server]:
        """Run the server that ours is compared with."""
        return self._running("bench.bare")

    def collector(self) -> contextlib.AbstractContextManager[Server]:
        """Run what receives spans and counts them."""
        return self._running("bench.collector")

    @contextlib.contextmanager
    def redis(self) -> Iterator[str]:
        """Run a Redis that keeps nothing on disk, wherever the system likes, and tell its URL."""
        port = _free_port()
        command = [str(_REDIS), "--port", str(port), "--bind", _HOST, "--save", ""]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                yield f"redis://{_HOST}:{port}"
            finally:
                process.kill()

    @contextlib.contextmanager
    def _running(self, module: str, *arguments: str, **environment: str) -> Iterator[Server]:
        port = _free_port()
        command = [sys.executable, "-m", module, *arguments, "--host", _HOST, "--port", str(port)]
        started_at = time.perf_counter()
        with subprocess.Popen(
            command, cwd=_ROOT, env=os.environ | environment, stdout=subprocess.DEVNULL
        ) as process:
            try:
                if self.core is not None:
                    os.sched_setaffinity(process.pid, {self.core})
                _await_readiness(process, port)
                ready_after = time.perf_counter() - started_at
                yield Server(psutil.Process(process.pid), port, ready_after)
            finally:
                process.kill()


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def _await_readiness(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not _is_ready(port):
        if process.poll() is not None:
            raise ServerError(f"A server ended with {process.returncode} before it was ready")
        if time.monotonic() > deadline:
            raise ServerError(f"A server was not ready after {_PATIENCE:.0f} s")
        time.sleep(_POLL_INTERVAL)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(_HOST, port, timeout=_PATIENCE)
    try:
        connection.request("GET", "/readiness")
        return connection.getresponse().status == HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()
