"""Real servers on free ports, and a client that is not ours."""

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import hypothesis
import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from agentws.agent.loading import Served
from agentws.config.settings import Settings
from agentws.daemon.server import Server
from tests.support.redis_server import RedisServer, running_redis

pytest_plugins = [
    "tests.support.browser",
    "tests.support.http_client",
    "tests.support.primary",
    "tests.support.processes",
    "tests.support.replicas",
    "tests.support.development",
]

# Tests find the same each time; what chance finds is the soak's (`--hypothesis-profile=soak`).
hypothesis.settings.register_profile("test", derandomize=True, deadline=None)
hypothesis.settings.register_profile("soak", derandomize=False, deadline=None, print_blob=True)
hypothesis.settings.load_profile("test")

Frame = dict[str, Any]

PATIENCE = 5.0
"""Seconds after which a frame that a test waits for is missing."""


def pytest_configure() -> None:
    """Let Ctrl-C reach what tests start, also where we run in the background of a shell.

    A shell has its background jobs ignore it, and whatever a process ignores, its children do.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have what was logged be sent between processes, which takes no half of a character."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak-seconds", type=float, default=20.0, help="How long a soak takes.")


@pytest.fixture
def soak_seconds(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("--soak-seconds"))


class Client:
    """One framed socket, seen from the other end."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, **fields: Any) -> None:
        """Send one JSON message."""
        await self.connection.send(json.dumps(fields))

    async def receive(self) -> Frame:
        """Return the next frame that is no keep-alive."""
        async with asyncio.timeout(PATIENCE):
            while (frame := json.loads(await self.connection.recv()))["type"] == "ping":
                pass
        assert isinstance(frame, dict)
        return frame

    async def until(self, **fields: Any) -> Frame:
        """Return the next frame with these fields, passing over others."""
        while True:
            frame = await self.receive()
            if all(frame.get(name) == value for name, value in fields.items()):
                return frame

    async def ask(self, **fields: Any) -> Frame:
        """Send one message and return the next frame."""
        await self.send(**fields)
        return await self.receive()

    async def closed(self) -> int:
        """Wait until the server closes the socket and return the code."""
        async with asyncio.timeout(PATIENCE):
            await self.connection.wait_closed()
        assert self.connection.close_code is not None
        return self.connection.close_code


class Address:
    """Where something listens that speaks for a server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.http = f"http://127.0.0.1:{port}"
        self.ws = f"ws://127.0.0.1:{port}"

    @asynccontextmanager
    async def connect(
        self, path: str = "/invocations_ws/ws", headers: Mapping[str, str] = {}, **options: Any
    ) -> AsyncIterator[Client]:
        """Open a framed socket."""
        async with websockets.connect(
            self.ws + path, additional_headers=headers, **options
        ) as connection:
            yield Client(connection)


class Running(Address):
    """A server that runs in this process."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.port)
        self.server = server

    @asynccontextmanager
    async def draining(self) -> AsyncIterator["asyncio.Task[bool]"]:
        """Drain the server during the body, and wait for the end."""
        task = asyncio.create_task(self.server.drain())
        await asyncio.sleep(0)  # it has begun
        yield task
        async with asyncio.timeout(2 * PATIENCE):
            await task


Serve = Callable[..., Awaitable[Running]]


@asynccontextmanager
async def serving() -> AsyncIterator[Serve]:
    """Start servers for agents, with sections of settings; they are drained at the end."""
    servers: list[Server] = []

    async def start(agent: Served, /, **sections: Any) -> Running:
        address = {"host": "127.0.0.1", "port": 0, "shutdown_grace": 0.0}
        server = Server(
            Settings(**{**sections, "server": {**address, **sections.get("server", {})}}), agent
        )
        await server.start()
        servers.append(server)
        return Running(server)

    yield start
    await asyncio.gather(*(server.drain() for server in servers))


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start servers for agents, as `serving` does."""
    async with serving() as start:
        yield start


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """Run one Redis for all tests that do it no harm."""
    with running_redis() as server:
        yield server


@pytest.fixture
def redis(shared_redis: RedisServer) -> RedisServer:
    """Return an empty Redis, which must stay as it is."""
    shared_redis.empty()
    return shared_redis


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """Run a Redis of the test's own, to be ill-treated."""
    with running_redis() as server:
        yield server


class LogLines(logging.Handler):
    """Collects log records, and lets a test wait for one."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._arrived = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record."""
        self.records.append(record)
        self._arrived.set()

    async def next(self, logger: str) -> logging.LogRecord:
        """Remove and return the oldest record of a logger, waiting for it if need be."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for record in self.records:
                    if record.name == logger:
                        self.records.remove(record)
                        return record
                self._arrived.clear()
                await self._arrived.wait()


@pytest.fixture
async def log_lines() -> AsyncIterator[LogLines]:
    """All that is logged during the test."""
    handler = LogLines()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(autouse=True)
def nothing_unforeseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Neither the event loop nor aiohttp may have met an exception that nobody caught."""
    yield
    assert not [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.name.startswith(("asyncio", "aiohttp")) and record.levelno >= logging.ERROR
    ]
