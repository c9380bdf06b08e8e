"""Behind Caddy, and behind Traefik: two daemons, and the configurations that are deployed."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from agentws import Agent, InvocationContext
from tests.conftest import PATIENCE, Serve
from tests.deploy.gateways import TRAEFIK, Gateway, running_caddy, running_traefik
from tests.deploy.programs import need
from tests.deploy.replicas import Replicas, counting
from tests.deploy.test_gateway import data_of, draining, refusing, take
from tests.support.processes import Start
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.gateway

IDLE = "500ms"
"""What the gateways' four minutes are scaled to."""

PINGS = 0.1
"""What the daemon's 30 s between pings are scaled to, in seconds."""

LONGER = 1.0
"""Seconds that are longer than the gateway lets anything be silent."""

Run = Callable[..., AbstractAsyncContextManager[Gateway]]


@pytest.fixture(params=["caddy", "traefik"])
def run(request: pytest.FixtureRequest) -> Run:
    need("caddy" if request.param == "caddy" else TRAEFIK)
    return running_caddy if request.param == "caddy" else running_traefik


class Site(Replicas):
    """Two replicas, with the gateway that `run` runs in front of them."""

    def __init__(self, folder: Path, serve: Serve, redis: RedisServer, run: Run) -> None:
        super().__init__(folder, serve, redis)
        self._run = run

    def gateway(self) -> AbstractAsyncContextManager[Gateway]:
        """Run the gateway in front of them."""
        return self._run(self.folder, IDLE, *self.ports)


@pytest.fixture
def site(tmp_path: Path, serve: Serve, redis: RedisServer, run: Run) -> Site:
    return Site(tmp_path, serve, redis, run)


async def test_idle_ones_survive_by_pings_and_comments(site: Site) -> None:
    await site.open(
        websocket={"heartbeat": 0.0, "app_ping_interval": PINGS},
        http={"sse_keepalive_interval": PINGS},
    )
    async with (
        site.gateway() as gateway,
        gateway.connect() as client,
        aiohttp.ClientSession(gateway.http) as session,
        session.post("/invocations", json={"count": 2, "pause": LONGER}) as answer,
    ):
        await asyncio.sleep(LONGER)  # silence is what is tested
        await client.send(action="invoke", payload={"count": 3, "pause": 0.0})
        await take(client, 3)
        assert [number async for number in data_of(answer)][:2] == [1, 2]


async def test_caddy_cuts_who_is_silent(tmp_path: Path, serve: Serve) -> None:
    need("caddy")
    none = {"heartbeat": 0.0, "app_ping_interval": 0.0}
    replica = await serve(counting(), websocket=none, http={"sse_keepalive_interval": 0.0})
    async with (
        running_caddy(tmp_path, IDLE, replica.port, replica.port) as gateway,
        gateway.connect() as client,
        aiohttp.ClientSession(gateway.http) as session,
        session.post("/invocations", json={"count": 1, "pause": 3600}) as answer,
    ):
        assert await client.closed() == 1006
        with contextlib.suppress(
            aiohttp.ClientPayloadError
        ):  # some versions end it as if it were whole
            assert b"stream_end" not in await answer.read()


async def test_a_socket_that_is_cut_resumes_by_attach_on_either_replica(site: Site) -> None:
    await site.open()
    async with site.gateway() as gateway, gateway.connect() as client:
        payload = {"count": 20, "pause": 0.05}
        await client.send(action="invoke", invocation_id="i", payload=payload)
        await take(client, 3)
        await gateway.stop()
        assert await client.closed() == 1006
        await gateway.start()
        for address in (gateway, *site.replicas):
            async with address.connect() as client:
                await client.send(action="attach_invocation", invocation_id="i", starting_after=3)
                await take(client, 20, after=3)


async def test_events_arrive_as_they_come(site: Site) -> None:
    await site.open()
    async with (
        site.gateway() as gateway,
        aiohttp.ClientSession(gateway.http) as session,
        session.post("/invocations", json={"count": 2, "pause": 3600}) as answer,
        asyncio.timeout(PATIENCE),
    ):
        assert await anext(data_of(answer)) == 1


async def test_a_replica_learns_that_who_read_events_has_left(site: Site) -> None:
    agent, left = Agent(), asyncio.Event()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.sleep(3600)
        finally:
            left.set()

    await site.open(agent, invocations={"disconnect_grace": 0.0})
    async with site.gateway() as gateway, asyncio.timeout(PATIENCE):
        async with (
            aiohttp.ClientSession(gateway.http) as session,
            session.post("/invocations") as answer,
            aclosing(data_of(answer)) as numbers,
        ):
            assert await anext(numbers) == 1
        await left.wait()


@pytest.mark.parametrize("status", [500, 503])
async def test_what_the_agent_answers_is_the_clients_and_runs_once(site: Site, status: int) -> None:
    agent, asked = refusing(status)
    await site.open(agent)
    async with site.gateway() as gateway, aiohttp.ClientSession(gateway.http) as session:
        headers = {"Idempotency-Key": "i"}
        for method, path in (("POST", "/invocations"), ("GET", "/invocations/i")):
            async with session.request(method, path, headers=headers) as answer:
                assert answer.status == status
                assert (await answer.json())["error"]["code"] == "mine"
    assert asked == ["invoke", "get"]


async def test_a_replica_that_drains_gets_nothing_new_once_that_is_noticed(site: Site) -> None:
    await site.open(server={"shutdown_grace": 3600.0})
    async with (
        site.gateway() as gateway,
        aiohttp.ClientSession(gateway.http) as session,
        draining(site.replicas[0]),
    ):
        await gateway.noticed()
        for _ in range(4):
            async with session.post("/invocations", json={"count": 0, "pause": 0}) as answer:
                assert answer.status == 200
            async with gateway.connect() as client:
                assert (await client.ask(action="ping"))["type"] == "pong"


async def test_a_replica_that_is_gone_is_passed_over(site: Site) -> None:
    await site.open()
    async with site.gateway() as gateway, aiohttp.ClientSession(gateway.http) as session:
        await site.replicas[0].server.drain()
        for _ in range(4):
            async with session.post("/invocations", json={"count": 1, "pause": 0}) as answer:
                assert answer.status == 200


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "//metrics", "/%6detrics"])
async def test_what_prometheus_reads_stays_inside(
    tmp_path: Path, launch: Start, run: Run, path: str
) -> None:
    # A process of its own: what is measured is measured for a whole process.
    daemon = await launch("", telemetry__prometheus="true")
    async with (
        run(tmp_path, IDLE, daemon.port, daemon.port) as gateway,
        aiohttp.ClientSession() as session,
        session.get(URL(gateway.http + path, encoded=True)) as answer,
    ):
        assert answer.status == 404
