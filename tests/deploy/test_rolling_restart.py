"""Both replicas are restarted, one after the other, under load, and nobody loses anything."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import Address
from tests.deploy.load import Caller, EventCaller, SocketCaller
from tests.deploy.nginx import running_nginx
from tests.deploy.programs import need
from tests.support.processes import PATIENCE, ROOT
from tests.support.redis_server import RedisServer, free_port

pytestmark = pytest.mark.gateway

SOCKETS, EVENT_STREAMS = 40, 10
CHUNKS, PAUSE = 40, 0.02

AGENT = """\
import asyncio

async def agent(payload, context):
    for number in range(1, payload["count"] + 1):
        yield number
        await asyncio.sleep(payload["pause"])
"""


class Replica(Address):
    """A daemon in a process of its own, always on the same port."""

    def __init__(self, folder: Path, store: str) -> None:
        super().__init__(free_port())
        self._folder = folder
        self._environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "AGENTWS_HANDLER__TARGET": "replica:agent",
            "AGENTWS_SERVER__HOST": "127.0.0.1",
            "AGENTWS_SERVER__PORT": str(self.port),
            "AGENTWS_STORE__URL": store,
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        (self._folder / "replica.py").write_text(AGENT)
        with (self._folder / f"{self.port}.log").open("a") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "agentws", "serve"),
                cwd=self._folder,
                env=self._environ,
                stdout=log,
            )
        async with asyncio.timeout(PATIENCE):
            while not await self._ready():
                assert self._process.returncode is None

    async def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE + 30):
            return await self._process.wait()

    async def _ready(self) -> bool:
        try:
            async with (
                aiohttp.ClientSession(self.http) as session,
                session.get("/readiness") as answer,
            ):
                return answer.status == 200
        except OSError:
            await asyncio.sleep(0.02)
            return False


@pytest.fixture
async def replicas(tmp_path: Path, redis: RedisServer) -> AsyncIterator[list[Replica]]:
    need("nginx")
    replicas = [Replica(tmp_path, redis.url) for _ in range(2)]
    await asyncio.gather(*(replica.start() for replica in replicas))
    yield replicas
    await asyncio.gather(*(replica.stop() for replica in replicas))


async def test_a_rolling_restart_loses_no_chunk_and_shows_no_error(
    replicas: list[Replica], tmp_path: Path
) -> None:
    payload = {"count": CHUNKS, "pause": PAUSE}
    async with running_nginx(tmp_path, *(it.port for it in replicas)) as gateway:
        callers: list[Caller] = [
            SocketCaller(gateway, f"socket-{index}", payload, patient=index % 2 == 0)
            for index in range(SOCKETS)
        ]
        callers += [EventCaller(gateway, f"events-{it}", payload) for it in range(EVENT_STREAMS)]
        load = [asyncio.create_task(caller.run()) for caller in callers]
        await served(callers, 1)
        began = time.monotonic()
        for replica in replicas:
            assert await replica.stop() == 0
            await replica.start()
            await served(callers, 1)
        took = time.monotonic() - began
        for caller in callers:
            caller.stopping = True
        await asyncio.gather(*load)

    report(callers, took)
    assert [error for caller in callers for error in caller.errors] == []
    for caller in callers:
        for stream in caller.done:
            assert stream.numbers == list(range(1, CHUNKS + 1))
    # Every socket was on one of the two, and had to move at least once.
    assert sum(caller.reconnects for caller in callers[:SOCKETS]) >= SOCKETS


async def served(callers: list[Caller], more: int) -> None:
    """Wait until every caller has finished so many streams more."""
    goals = [len(caller.done) + more for caller in callers]
    async with asyncio.timeout(3 * PATIENCE):
        for caller, goal in zip(callers, goals, strict=True):
            await caller.has_done(goal)


def report(callers: list[Caller], took: float) -> None:
    """Print the figures, which pytest shows with -s."""
    streams = [stream for caller in callers for stream in caller.done]
    sockets = [caller for caller in callers if isinstance(caller, SocketCaller)]
    print(  # noqa: T201
        f"\nrolling restart in {took:.1f} s: {len(streams)} streams,"
        f" {sum(len(stream.numbers) for stream in streams)} chunks, all in order;"
        f" {sum(caller.reconnects for caller in sockets)} reconnects of {len(sockets)} sockets,"
        f" {sum(caller.refusals for caller in callers)} invokes were refused and sent again;"
        f" longest pause between two chunks"
        f" {max(stream.longest_pause for stream in streams) * 1000:.0f} ms"
        f" (the agent's own is {PAUSE * 1000:.0f} ms)"
    )
