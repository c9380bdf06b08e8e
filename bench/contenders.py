"""Who is compared, and how each is run: a process of its own, on a core of its own."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import psutil

from bench.served.watch import FILE, PAUSES

ROOT: Final = Path(__file__).parents[1]
PEER_PYTHON: Final = ROOT / ".venv/bench/bin/python"
"""The interpreter of the environment that `make .venv/.bench` makes of requirements.txt."""

OURS: Final = "/invocations_ws/ws"
_HOST: Final = "127.0.0.1"
_REDIS: Final = Path(sysconfig.get_path("scripts"), "redis-server")
_PATIENCE: Final = 30.0
"""How many seconds a server has to become ready."""

_POLL_INTERVAL: Final = 0.002
"""Seconds; start-up is measured to that precision."""


_INSTALLED: Final = {"PYTHONDONTWRITEBYTECODE": ""}
"""The environment in which a server finds byte code, from its second start on, as pip leaves it."""


class ServerError(Exception):
    """A server did not start."""


@dataclass(frozen=True)
class Contender:
    """One that is compared: what is run, where its socket is, what it needs beside it."""

    name: str
    command: tuple[str, ...] = ()
    """Behind `python -m`; ours is run with the handler that a scenario names, where it is empty."""
    path: str = OURS
    python: Path = Path(sys.executable)
    handler: str | None = None
    """The handler that ours serves, whatever the scenario names."""
    environment: Mapping[str, str] = field(default_factory=dict)
    beside: Literal["redis", "collector"] | None = None
    echoes: bool = False
    """Whether echoes of it are measured where others stream."""

    @property
    def is_ours(self) -> bool:
        """Whether it is the daemon."""
        return not self.command


_BARE: Final = ("bench.served.bare",)
_ASGI: Final = "bench.served.asgi"

CONTENDERS: Final[Mapping[str, Contender]] = MappingProxyType(
    {
        each.name: each
        for each in (
            Contender("agentws"),
            Contender("agentws, OTLP", beside="collector"),
            Contender("agentws, access log", environment={"AGENTWS_SERVER__ACCESS_LOG": "true"}),
            Contender(
                "agentws, invocation log", environment={"AGENTWS_SERVER__INVOCATION_LOG": "true"}
            ),
            Contender("agentws, Redis", beside="redis"),
            Contender("agentws, Prometheus", environment={"AGENTWS_TELEMETRY__PROMETHEUS": "true"}),
            Contender("agentws, declared type", handler="echo_typed"),
            Contender("aiohttp, json", _BARE),
            Contender("aiohttp, json, echo", _BARE, echoes=True),
            Contender("aiohttp, msgspec", (*_BARE, "--codec", "msgspec")),
            Contender("aiohttp, access log", (*_BARE, "--access-log")),
            Contender("Starlette", (_ASGI, "starlette"), "/invocations_ws", PEER_PYTHON),
            Contender("peer", (_ASGI, "peer"), "/invocations_ws", PEER_PYTHON),
            Contender(
                "peer, OTLP", (_ASGI, "peer"), "/invocations_ws", PEER_PYTHON, beside="collector"
            ),
        )
    }
)
"""All that are compared, by name. The peer is azure-ai-agentserver-invocations."""


UNLIMITED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "AGENTWS_INVOCATIONS__REPLAY_BYTES": str(64 * 1024**2),
        "AGENTWS_WEBSOCKET__MAX_INVOCATIONS_PER_CONNECTION": "1000000",
    }
)
"""The environment in which ours holds long streams whole, and lets one socket run very many."""


class Pauses:
    """What a server's collector did, told by `bench.served.watch` in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reset()

    def reset(self) -> None:
        """Forget what was."""
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.write(bytes(PAUSES.size))

    @property
    def longest(self) -> float:
        """The longest pause, in seconds."""
        return float(PAUSES.unpack(self.path.read_bytes())[0])

    @property
    def full(self) -> int:
        """How many full collections there were."""
        return int(PAUSES.unpack(self.path.read_bytes())[1])


@dataclass(frozen=True)
class Server:
    """A server that is ready."""

    process: psutil.Process
    port: int
    path: str
    ready_after: float
    """Seconds from the start of the process to the first 200 on its readiness probe."""
    pauses: Pauses

    @property
    def cpu_seconds(self) -> float:
        """CPU time that all its threads spent so far, user and system, to the nanosecond."""
        # The clock of another process, as clock_getcpuclockid(3) makes its number of the process's:
        # what /proc tells is in hundredths of a second.
        return time.clock_gettime(~self.process.pid << 3 | 2)

    @property
    def page_faults(self) -> int:
        """How often it touched memory that the kernel had yet to give."""
        return int(Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[7])

    @property
    def resident_bytes(self) -> int:
        """Resident memory."""
        return int(self.process.memory_info().rss)


class Servers:
    """Starts servers on one core, or wherever the system likes, where `core` is None.

    `with_others` is whether those take part that need the peer's environment.
    """

    def __init__(self, core: int | None, with_others: bool = True) -> None:
        self._core = core
        self._with_others = with_others

    def chosen(self, names: Iterable[str]) -> list[Contender]:
        """Return the contenders of these names that take part."""
        contenders = (CONTENDERS[name] for name in names)
        return [it for it in contenders if self._with_others or it.python != PEER_PYTHON]

    @contextlib.contextmanager
    def run(
        self, contender: Contender, handler: str = "echo", **environment: str
    ) -> Iterator[Server]:
        """Run a contender; ours with a handler of `bench.served.agents`, and more environment."""
        with self._beside(contender) as beside:
            if contender.is_ours:
                served = f"bench.served.agents:{contender.handler or handler}"
                command: tuple[str, ...] = ("agentws", "serve", "--handler", served)
                beside |= {**_quiet(), **contender.environment, **environment}
            else:
                command = contender.command
            with self._running(contender, command, beside) as server:
                yield server

    def daemon(self, handler: str, **environment: str) -> contextlib.AbstractContextManager[Server]:
        """Run the daemon, without telemetry and logs."""
        return self.run(CONTENDERS["agentws"], handler, **environment)

    def bare(self) -> contextlib.AbstractContextManager[Server]:
        """Run the bare server."""
        return self.run(CONTENDERS["aiohttp, json"])

    @contextlib.contextmanager
    def _beside(self, contender: Contender) -> Iterator[dict[str, str]]:
        """Run what it needs, on the core of the load; return the environment that tells of it."""
        if contender.beside == "redis":
            with _redis() as url:
                yield {"AGENTWS_STORE__URL": url}
        elif contender.beside == "collector":
            collector = Contender("collector", ("bench.served.collector",))
            with Servers(None).run(collector) as server:
                yield {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{_HOST}:{server.port}"}
        else:
            yield {}

    @contextlib.contextmanager
    def _running(
        self, contender: Contender, arguments: tuple[str, ...], environment: Mapping[str, str]
    ) -> Iterator[Server]:
        port = _free_port()
        python = str(contender.python)
        command = [python, "-m", *arguments, "--host", _HOST, "--port", str(port)]
        with tempfile.TemporaryDirectory() as folder:
            pauses = Pauses(Path(folder, "pauses"))
            environment = {**os.environ, **_INSTALLED, **environment, FILE: str(pauses.path)}
            log = Path(folder, "log")
            started_at = time.perf_counter()
            with (
                log.open("wb") as output,
                subprocess.Popen(
                    command, cwd=ROOT, env=environment, stdout=output, stderr=output
                ) as process,
            ):
                try:
                    if self._core is not None:
                        os.sched_setaffinity(process.pid, {self._core})
                    _await_readiness(process, port, log)
                    ready_after = time.perf_counter() - started_at
                    watched = psutil.Process(process.pid)
                    yield Server(watched, port, contender.path, ready_after, pauses)
                finally:
                    process.kill()


def _quiet() -> dict[str, str]:
    """Have the daemon log neither requests nor invocations, as what it is compared with."""
    return {f"AGENTWS_SERVER__{name}_LOG": "false" for name in ("ACCESS", "INVOCATION")}


@contextlib.contextmanager
def _redis() -> Iterator[str]:
    """Run a Redis that keeps nothing on disk, and tell its URL."""
    port = _free_port()
    command = [str(_REDIS), "--port", str(port), "--bind", _HOST, "--save", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield f"redis://{_HOST}:{port}"
        finally:
            process.kill()


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def _await_readiness(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not _is_ready(port):
        if process.poll() is not None:
            raise ServerError(f"A server ended before it was ready: {log.read_text()}")
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
